// The page: which board, which time, which values of variables; asks Prometheus for each panel and has it drawn.
"use strict";

const RANGES = [["5 minutes", 300], ["15 minutes", 900], ["1 hour", 3600], ["6 hours", 21600], ["24 hours", 86400], ["7 days", 604800]];
const REFRESHES = [["never", 0], ["5 s", 5], ["30 s", 30], ["1 min", 60]];
const KINDS = { process_cpu: "cpu", wall: "wall", memory: "heap", goroutine: "tasks", block: "block", mutex: "mutex" };
const MOST_AT_ONCE = 6;
const state = { board: null, contents: null, variables: [], range: 3600, refresh: 30, scrape: 15, run: 0, timer: null, plots: [] };

const parameters = () => new URLSearchParams(window.location.search);

async function asJson(response) {
  const answer = await response.json();
  if (!response.ok || answer.status === "error") throw new Error(answer.error || `status ${response.status}`);
  return answer;
}

async function ask(path, form) {
  const answer = await asJson(await fetch(`/api/v1/${path}`, { method: "POST", body: new URLSearchParams(form) }));
  return answer.data;
}

function span_() {
  const step = niceStep(state.range, 240);
  const to = Math.floor(Date.now() / 1000 / step) * step;
  return { step, from: to - Math.floor(state.range / step) * step, to };
}

// Everything that can stand behind a dollar in a query.
function values(step) {
  const rate = Math.max(4 * state.scrape, step + state.scrape);
  const built = {
    __rate_interval: `${rate}s`, __interval: `${step}s`, __interval_ms: String(step * 1000),
    __range: `${state.range}s`, __range_s: String(state.range), __range_ms: String(state.range * 1000),
    __from: String((Date.now() / 1000 - state.range) * 1000 | 0), __to: String(Date.now()),
  };
  for (const variable of state.variables) built[variable.name] = expanded(variable);
  return built;
}

async function start() {
  state.contents = await asJson(await fetch("/boards.json"));
  const asked = decodeURIComponent(window.location.pathname.replace(/^\/d\//, ""));
  const known = state.contents.boards.map((one) => one.uid);
  const uid = known.includes(asked) ? asked : known[0];
  state.board = await asJson(await fetch(`/boards/${encodeURIComponent(uid)}`));
  document.title = `${state.board.title} – sage-obs preview`;
  state.range = rangeOf(parameters().get("from") || (state.board.time || {}).from) || 3600;
  state.refresh = parameters().has("refresh") ? Number(parameters().get("refresh")) : 30;
  showBoards(uid);
  choices();
  await findScrape();
  await findVariables();
  layOut();
  await refresh();
}

function rangeOf(text) {
  const match = /^now-(\d+)([smhd])$/.exec(text || "");
  return match ? Number(match[1]) * { s: 1, m: 60, h: 3600, d: 86400 }[match[2]] : 0;
}

function showBoards(uid) {
  const nav = document.getElementById("boards");
  for (const one of state.contents.boards) {
    const link = made("a", one.uid === uid ? "here" : "", one.title);
    link.href = `/d/${encodeURIComponent(one.uid)}${window.location.search}`;
    nav.append(link);
  }
  document.getElementById("about").textContent = `${state.board.description || ""} Asking ${state.contents.prometheus}.`;
}

function choices() {
  fill(document.getElementById("range"), RANGES.map(([name, value]) => [`the last ${name}`, value]), state.range, (value) => { state.range = value; keep(); });
  fill(document.getElementById("refresh"), REFRESHES, state.refresh, (value) => { state.refresh = value; keep(); });
  document.getElementById("now").addEventListener("click", () => refresh());
}

function fill(select, options, chosen, change) {
  const there = options.some(([, value]) => value === chosen) ? options : [...options, [`${chosen} s`, chosen]];
  for (const [name, value] of there) select.add(new Option(name, String(value), false, value === chosen));
  select.addEventListener("change", () => { change(Number(select.value)); refresh(); });
}

// The address says what is shown, so that it can be kept and given on.
function keep() {
  const query = new URLSearchParams({ from: `now-${state.range}s`, refresh: String(state.refresh) });
  for (const one of state.variables) if (one.type === "query") for (const value of one.chosen) query.append(`var-${one.name}`, value);
  window.history.replaceState(null, "", `${window.location.pathname}?${query}`);
  for (const link of document.querySelectorAll("nav a")) link.search = `?${query}`;
}

// How often Prometheus scrapes: rates need four samples.
async function findScrape() {
  try {
    const { result } = await ask("query", { query: "max(count_over_time(up[2m]))" });
    if (result.length) state.scrape = Math.max(1, Math.round(120 / Math.max(2, Number(result[0].value[1]))));
  } catch (error) {
    document.getElementById("status").textContent = error.message;
  }
}

async function findVariables() {
  state.variables = [];
  for (const one of (state.board.templating || {}).list || []) {
    const given = parameters().getAll(`var-${one.name}`);
    const current = [].concat((one.current || {}).value ?? one.query ?? "");
    const variable = { name: one.name, type: one.type, label: one.label || one.name, allValue: one.allValue, chosen: given.length ? given : current };
    if (one.type === "datasource") variable.chosen = [one.name];
    state.variables.push(variable);
    if (one.type === "query") await offer(variable, one);
  }
}

async function offer(variable, one) {
  const match = /^label_values\(([\s\S]*),\s*(\w+)\)$/.exec(one.definition || (one.query || {}).query || "");
  if (!match) return;
  const { step, from, to } = span_();
  let found = [];
  try {
    const series = await ask("series", { "match[]": substituted(match[1], values(step)), start: from, end: to + step });
    found = [...new Set(series.map((labels) => labels[match[2]]).filter(Boolean))].sort();
  } catch (error) {
    document.getElementById("status").textContent = error.message;
  }
  if (!variable.chosen.length) variable.chosen = one.includeAll ? ["$__all"] : found.slice(0, 1);
  const label = made("label", "", variable.label);
  const select = made("select");
  select.multiple = Boolean(one.multi);
  select.name = variable.name;
  const options = one.includeAll ? [["All", "$__all"]] : [];
  for (const value of new Set([...found, ...variable.chosen.filter((value) => value !== "$__all")])) options.push([value, value]);
  for (const [name, value] of options) select.add(new Option(name, value, false, variable.chosen.includes(value)));
  select.addEventListener("change", () => {
    const chosen = [...select.selectedOptions].map((option) => option.value);
    variable.chosen = !chosen.length || (chosen.includes("$__all") && chosen.length === 1) ? ["$__all"] : chosen.filter((value) => value !== "$__all");
    keep();
    refresh();
  });
  label.append(select);
  document.getElementById("variables").append(label);
}

function layOut() {
  const grid = document.getElementById("grid");
  for (const panel of state.board.panels.flatMap((one) => [one, ...(one.panels || [])])) {
    const { x, y, w, h } = panel.gridPos || { x: 0, y: 0, w: 24, h: 8 };
    const box = made("section", panel.type === "row" ? "row" : "panel", panel.type === "row" ? panel.title : undefined);
    box.style.gridColumn = `${x + 1} / span ${w}`;
    box.style.gridRow = `${y + 1} / span ${h}`;
    grid.append(box);
    if (panel.type === "row") continue;
    const title = made("h2", "", panel.title);
    title.title = panel.description || "";
    panel.body = made("div", "body");
    box.dataset.panel = panel.title || "";
    box.append(title, panel.body);
    nothing(panel.body, "…");
  }
}

async function refresh() {
  state.run += 1;
  const run = state.run;
  window.clearTimeout(state.timer);
  const time = span_();
  const known = values(time.step);
  const marks = await annotations(time, known);
  const waiting = state.board.panels.flatMap((one) => [one, ...(one.panels || [])]).filter((one) => one.body);
  let failed = 0;
  const work = async () => {
    for (let panel = waiting.shift(); panel && run === state.run; panel = waiting.shift()) {
      try {
        await draw(panel, time, known, marks);
      } catch (error) {
        failed += 1;
        panel.body.replaceChildren(made("div", "none error", error.message));
      }
    }
  };
  await Promise.all(Array.from({ length: MOST_AT_ONCE }, work));
  if (run !== state.run) return;
  document.getElementById("status").textContent = `${failed ? `${failed} panels failed, ` : ""}as of ${new Date().toLocaleTimeString()}`;
  document.body.dataset.failed = String(failed);
  document.body.dataset.ready = String(run);
  if (state.refresh > 0) state.timer = window.setTimeout(refresh, state.refresh * 1000);
}

async function annotations(time, known) {
  const marks = [];
  for (const one of (state.board.annotations || {}).list || []) {
    if (!one.enable || !one.expr) continue;
    try {
      const { result } = await ranged(one.expr, time, known);
      for (const { values: points } of result) marks.push(...(one.useValueForTime ? moments(one, points, time) : spans(one, points, time)));
    } catch (error) {
      document.getElementById("status").textContent = error.message;
    }
  }
  return marks;
}

function moments(one, points, time) {
  const found = new Set(points.map(([, value]) => Number(value) / 1000));
  return [...found].filter((at) => at >= time.from && at <= time.to).map((at) => ({ from: at, to: at, colour: one.iconColor }));
}

function spans(one, points, time) {
  const found = [];
  for (const [at] of points) {
    const before = found[found.length - 1];
    if (before && at - before.to <= time.step) before.to = at;
    else found.push({ from: at, to: at, colour: one.iconColor });
  }
  return found;
}

function ranged(expr, time, known) {
  return ask("query_range", { query: substituted(expr, known), start: time.from, end: time.to, step: time.step });
}

async function draw(panel, time, known, marks) {
  if (panel.type === "text") return drawText(panel, panel.body, known);
  if (panel.type === "logs") return nothing(panel.body, `Log lines are Loki's, which this preview does not ask: ${substituted(panel.targets[0].expr, known)}`);
  if (panel.type === "flamegraph") return flame(panel);
  if (panel.type === "alertlist") {
    const filter = ((panel.options || {}).alertInstanceLabelFilter || "{}").replace(/^\{|\}$/g, "");
    const { result } = await ask("query", { query: `ALERTS{${substituted(filter, known)}}` });
    return drawAlerts(panel, panel.body, result);
  }
  const asked = (panel.targets || []).filter((target) => target.expr && !target.hide);
  if (panel.type === "table") {
    const results = await Promise.all(asked.map(async (target) => ({ target, ...(await ask("query", { query: substituted(target.expr, known) })) })));
    return drawTable(panel, panel.body, results, (url, value) => followed(url, value));
  }
  const results = await Promise.all(asked.map(async (target) => ({ target, ...(await ranged(target.expr, time, known)) })));
  const data = aligned(results, time.from, time.to, time.step);
  switch (panel.type) {
    case "stat": return drawStat(panel, panel.body, data);
    case "timeseries": return drawLines(panel, panel.body, data, marks);
    case "heatmap": return drawHeatmap(panel, panel.body, data);
    case "state-timeline": return drawStates(panel, panel.body, data);
    default: return nothing(panel.body, `This preview does not draw panels of the kind ${panel.type}.`);
  }
}

async function flame(panel) {
  const kind = KINDS[String(((panel.targets || [])[0] || {}).profileTypeId).split(":")[0]];
  if (!state.contents.profiles || !kind) return nothing(panel.body, "Flame graphs come from Pyroscope, or here from a service: --profiles http://localhost:6060");
  if (panel.drawn) return undefined; // a profile is taken once, for taking it costs the service something
  const response = await fetch(`/profiles/${kind}?seconds=2`);
  if (!response.ok) throw new Error((await response.json()).error);
  panel.drawn = true;
  return drawFlame(panel.body, await response.text());
}

// A link to a board leads to the same board here, with the value that was clicked and the time.
function followed(url, value) {
  const match = /^\/d\/([\w-]+)\?(.*)$/.exec(url);
  if (!match || !state.contents.boards.some((one) => one.uid === match[1])) return null;
  const query = new URLSearchParams({ from: `now-${state.range}s`, refresh: String(state.refresh) });
  for (const part of match[2].split("&")) {
    const [name, text] = part.split("=");
    if (text && text.includes("${__value.text}")) query.append(name, value);
  }
  return `/d/${match[1]}?${query}`;
}

start().catch((error) => {
  document.getElementById("status").textContent = error.message;
  document.body.dataset.failed = "all";
  document.body.dataset.ready = "1";
});
