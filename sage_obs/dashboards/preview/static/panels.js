// How each kind of panel is drawn. Texts from outside reach the page through textContent only.
"use strict";

function made(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function nothing(body, text) {
  body.replaceChildren(made("div", "none", text || "No data"));
}

// Series of all queries on one axis of times: [times, ...values], null where there is none.
function aligned(results, from, to, step) {
  const times = [];
  for (let at = from; at <= to; at += step) times.push(at);
  const place = new Map(times.map((at, index) => [at, index]));
  const series = [];
  for (const { target, result } of results) {
    for (const { metric, values } of result) {
      const column = new Array(times.length).fill(null);
      for (const [at, text] of values) {
        const index = place.get(Math.round(at));
        const value = Number(text);
        if (index !== undefined && Number.isFinite(value)) column[index] = value;
      }
      series.push({ name: named(target.legendFormat, metric), metric, ref: target.refId, values: column });
    }
  }
  return { times, series };
}

function last(values) {
  for (let index = values.length - 1; index >= 0; index -= 1) if (values[index] !== null) return values[index];
  return null;
}

function defaults(panel) {
  return (panel.fieldConfig && panel.fieldConfig.defaults) || {};
}

function thresholds(panel) {
  return (defaults(panel).thresholds || {}).steps || [];
}

function dashedRefs(panel) {
  const found = new Set();
  for (const { matcher, properties } of (panel.fieldConfig || {}).overrides || []) {
    if (matcher.id === "byFrameRefID" && properties.some((one) => one.id === "custom.lineStyle")) found.add(matcher.options);
  }
  return found;
}

function drawStat(panel, body, data) {
  const { series } = data;
  const values = series.length ? series[0].values : [];
  const value = last(values);
  if (value === null) return nothing(body, "no data");
  const colour = coloured(value, thresholds(panel));
  const number = made("div", "stat", written(value, defaults(panel).unit));
  number.style.color = colour;
  const spark = made("canvas", "spark");
  body.replaceChildren(number, spark);
  drawSpark(spark, values, colour);
  return undefined;
}

function sized(canvas) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return { context, width: canvas.clientWidth, height: canvas.clientHeight };
}

function drawSpark(canvas, values, colour) {
  const known = values.filter((value) => value !== null);
  const { context, width, height } = sized(canvas);
  const low = Math.min(...known);
  const span = Math.max(...known) - low || 1;
  context.fillStyle = colour;
  context.beginPath();
  context.moveTo(0, height);
  let drawn = 0;
  values.forEach((value, index) => {
    if (value === null) return;
    const x = (index / Math.max(1, values.length - 1)) * width;
    if (!drawn) context.lineTo(x, height);
    drawn = x;
    context.lineTo(x, height - ((value - low) / span) * (height - 2) - 1);
  });
  context.lineTo(drawn, height);
  context.fill();
}

function stackedValues(series, stacks) {
  const sums = [];
  return series.map((one, place) => {
    if (!stacks[place]) return one.values;
    return one.values.map((value, index) => {
      if (value === null) return null;
      sums[index] = (sums[index] || 0) + value;
      return sums[index];
    });
  });
}

function drawLines(panel, body, data, marks) {
  const { times, series } = data;
  if (!series.some((one) => last(one.values) !== null)) return nothing(body);
  const unit = defaults(panel).unit;
  const custom = defaults(panel).custom || {};
  const dashed = dashedRefs(panel);
  const stacks = series.map((one) => (custom.stacking || {}).mode === "normal" && !dashed.has(one.ref));
  const columns = stackedValues(series, stacks);
  const colours = series.map((_, index) => PALETTE[index % PALETTE.length]);
  const limits = thresholds(panel).filter((step) => step.value !== null && step.value !== undefined);
  const chart = made("div", "chart");
  body.replaceChildren(chart, legend(series, colours, unit));
  const options = {
    width: Math.max(60, chart.clientWidth),
    height: Math.max(40, chart.clientHeight),
    cursor: { sync: { key: "board" }, points: { size: 5 } },
    scales: { x: { min: times[0], max: times[times.length - 1] }, y: { range: (_, low, high) => span(low, high) } },
    padding: [6, 10, 0, 0],
    axes: [{ ...axis(), size: 26, space: 46, values: (_, ticks) => clock(ticks) }, { ...axis(), size: 62, values: (_, ticks) => ticks.map((tick) => written(tick, unit)) }],
    series: [{}, ...series.map((one, index) => ({
      label: one.name, stroke: colours[index], width: 1.4, spanGaps: false, points: { show: false },
      dash: dashed.has(one.ref) ? [6, 6] : undefined,
      fill: dashed.has(one.ref) ? undefined : colours[index] + (stacks[index] ? "40" : "12"),
    }))],
    hooks: { draw: [(plot) => { drawLimits(plot, limits); drawMarks(plot, marks); }] },
  };
  return new uPlot(options, [times, ...columns], chart);
}

function axis() {
  return { stroke: "#8e8e99", grid: { stroke: "#2c303880", width: 1 }, ticks: { show: false }, font: "10px sans-serif" };
}

function clock(ticks) {
  const short = ticks.length > 1 && ticks[1] - ticks[0] < 60;
  const day = ticks.length > 1 && ticks[ticks.length - 1] - ticks[0] > 86400;
  return ticks.map((tick) => {
    const at = new Date(tick * 1000);
    if (day) return at.toLocaleDateString([], { month: "short", day: "numeric" });
    return at.toTimeString().slice(0, short ? 8 : 5);
  });
}

function span(low, high) {
  const bottom = Math.min(0, low ?? 0);
  const top = high === null || high === undefined || high === bottom ? bottom + 1 : high;
  return [bottom, top + (top - bottom) * 0.08];
}

function drawLimits(plot, limits) {
  const { ctx, bbox } = plot;
  for (const { value, color } of limits) {
    const y = plot.valToPos(value, "y", true);
    if (y < bbox.top || y > bbox.top + bbox.height) continue;
    ctx.save();
    ctx.strokeStyle = COLOURS[color] || color;
    ctx.setLineDash([8, 6]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.restore();
  }
}

function drawMarks(plot, marks) {
  const { ctx, bbox } = plot;
  for (const { from, to, colour } of marks) {
    const left = Math.max(plot.valToPos(from, "x", true), bbox.left);
    const right = Math.min(plot.valToPos(to, "x", true), bbox.left + bbox.width);
    if (right < bbox.left || left > bbox.left + bbox.width) continue;
    ctx.save();
    ctx.strokeStyle = COLOURS[colour] || colour;
    ctx.fillStyle = (COLOURS[colour] || colour) + "18";
    ctx.setLineDash([3, 3]);
    if (right > left) ctx.fillRect(left, bbox.top, right - left, bbox.height);
    ctx.beginPath();
    ctx.moveTo(left, bbox.top);
    ctx.lineTo(left, bbox.top + bbox.height);
    ctx.stroke();
    ctx.restore();
  }
}

function legend(series, colours, unit) {
  const box = made("div", "legend");
  const table = made("table");
  series.forEach((one, index) => {
    const line = table.insertRow();
    const name = line.insertCell();
    const swatch = made("span", "swatch");
    swatch.style.background = colours[index];
    name.append(swatch, one.name);
    name.title = one.name;
    line.insertCell().textContent = written(last(one.values), unit);
  });
  box.append(table);
  return box;
}

function bounds(name) {
  return name === "+Inf" ? Infinity : Number(name);
}

function drawHeatmap(panel, body, data) {
  const rows = data.series.map((one) => ({ bound: bounds(one.metric.le), values: one.values })).sort((a, b) => a.bound - b.bound);
  if (!rows.length) return nothing(body);
  const own = rows.map((row, index) => row.values.map((value, at) => Math.max(0, (value || 0) - (index ? rows[index - 1].values[at] || 0 : 0))));
  const used = rows.map((_, index) => index).filter((index) => own[index].some((value) => value > 0));
  if (!used.length) return nothing(body);
  const [first, final] = [used[0], used[used.length - 1]];
  const canvas = made("canvas", "heat");
  body.replaceChildren(canvas);
  const { context, width, height } = sized(canvas);
  const left = 58;
  const most = Math.max(...own.flat());
  const tall = height / (final - first + 1);
  const wide = (width - left) / data.times.length;
  context.font = "10px sans-serif";
  for (let index = first; index <= final; index += 1) {
    const y = height - (index - first + 1) * tall;
    own[index].forEach((value, at) => {
      if (value <= 0) return;
      context.fillStyle = `rgba(255, 120, 10, ${0.12 + 0.88 * Math.sqrt(value / most)})`;
      context.fillRect(left + at * wide, y, Math.max(1, wide - 0.5), Math.max(1, tall - 1));
    });
    context.fillStyle = "#8e8e99";
    const label = rows[index].bound === Infinity ? "more" : `≤ ${seconds(rows[index].bound)}`;
    if (tall >= 10 || index === first || index === final) context.fillText(label, 2, y + tall / 2 + 3);
  }
  return undefined;
}

function drawStates(panel, body, data) {
  const { series } = data;
  if (!series.length) return nothing(body);
  const words = {};
  for (const mapping of defaults(panel).mappings || []) Object.assign(words, mapping.options || {});
  const box = made("div", "states");
  const lines = series.map((one) => {
    const name = made("span", "", one.name);
    const canvas = made("canvas");
    const value = last(one.values);
    name.title = `${one.name}: ${(words[String(value)] || {}).text || written(value, "short")}`;
    canvas.title = name.title;
    box.append(name, canvas);
    return { canvas, values: one.values };
  });
  body.replaceChildren(box);
  for (const { canvas, values } of lines) {
    const { context, width, height } = sized(canvas);
    const wide = width / values.length;
    values.forEach((value, index) => {
      if (value === null) return;
      context.fillStyle = coloured(value, thresholds(panel));
      context.fillRect(index * wide, 0, wide + 0.5, height);
    });
  }
  return undefined;
}

// The rows of instant queries, joined by their labels, as the transformations of the panel arrange them.
function tableRows(panel, results) {
  const rows = new Map();
  for (const { target, result } of results) {
    for (const { metric, value } of result) {
      const labels = Object.fromEntries(Object.entries(metric).filter(([name]) => name !== "__name__"));
      const key = JSON.stringify(Object.entries(labels).sort());
      if (!rows.has(key)) rows.set(key, { ...labels });
      rows.get(key)[results.length > 1 ? `Value #${target.refId}` : "Value"] = Number(value[1]);
    }
  }
  return [...rows.values()];
}

function drawTable(panel, body, results, follow) {
  const rows = tableRows(panel, results);
  if (!rows.length) return nothing(body);
  const organize = ((panel.transformations || []).find((one) => one.id === "organize") || { options: {} }).options;
  const hidden = organize.excludeByName || {};
  const order = organize.indexByName || {};
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))].filter((name) => !hidden[name] && (name in order || !Object.keys(order).length));
  columns.sort((a, b) => (order[a] ?? 99) - (order[b] ?? 99));
  const styles = {};
  for (const { matcher, properties } of panel.fieldConfig.overrides || []) {
    if (matcher.id === "byName") styles[matcher.options] = Object.fromEntries(properties.map((one) => [one.id, one.value]));
  }
  const table = made("table");
  const head = table.createTHead().insertRow();
  for (const name of columns) head.append(made("th", "", (organize.renameByName || {})[name] || name));
  const inner = table.createTBody();
  for (const row of rows) {
    const line = inner.insertRow();
    for (const name of columns) cell(line.insertCell(), row[name], styles[name] || {}, follow);
  }
  const box = made("div", "scroll");
  box.append(table);
  body.replaceChildren(box);
  return undefined;
}

function cell(place, value, style, follow) {
  if (typeof value !== "number") {
    const link = style.links && value !== undefined ? follow(style.links[0].url, value) : null;
    if (link === null) { place.textContent = value ?? ""; return; }
    const anchor = made("a", "", value);
    anchor.href = link;
    place.append(anchor);
    return;
  }
  place.textContent = written(value, style.unit);
  if (style.thresholds) place.style.color = coloured(value, style.thresholds.steps);
}

function drawAlerts(panel, body, result) {
  if (!result.length) return nothing(body, "No alerts");
  const box = made("div", "scroll");
  for (const { metric } of result) {
    const line = made("div", metric.alertstate === "firing" ? "alert" : "alert pending");
    const about = ["severity", "job", "version", "instance"].map((name) => metric[name]).filter(Boolean).join(" · ");
    line.append(made("b", "", metric.alertstate), made("span", "", metric.alertname), made("span", "", about));
    box.append(line);
  }
  body.replaceChildren(box);
  return undefined;
}

// A little Markdown: paragraphs, numbered lists, bold, code and links; everything else is text.
function drawText(panel, body, values) {
  const box = made("div", "text");
  let list = null;
  for (const block of substituted((panel.options || {}).content || "", values).split(/\n\s*\n|\n(?=\d+\. )/)) {
    const item = /^\d+\. /.test(block);
    const text = block.replace(/^\d+\. /, "").replace(/\s+/g, " ").trim();
    if (item && !list) { list = made("ol"); box.append(list); }
    if (!item) list = null;
    const element = made(item ? "li" : "p");
    inline(element, text);
    (list || box).append(element);
  }
  body.replaceChildren(box);
}

function inline(element, text) {
  const parts = /\*\*([^*]+)\*\*|`([^`]+)`|\[([^\]]+)\]\(([^)\s]+)\)/g;
  let done = 0;
  for (const match of text.matchAll(parts)) {
    element.append(text.slice(done, match.index));
    const address = match[4] && safe(match[4]);
    if (match[1]) element.append(made("b", "", match[1]));
    else if (match[2]) element.append(made("code", "", match[2]));
    else if (address) { const link = made("a", "", match[3]); link.href = address; element.append(link); }
    else element.append(match[3]);
    done = match.index + match[0].length;
  }
  element.append(text.slice(done));
}

// Stacks as `outer;inner 12` lines, as a tree: {name, value, children}.
function treeOf(collapsed) {
  const root = { name: "all", value: 0, children: new Map() };
  for (const line of collapsed.split("\n")) {
    const cut = line.lastIndexOf(" ");
    const count = Number(line.slice(cut + 1));
    if (cut < 1 || !Number.isFinite(count)) continue;
    let node = root;
    node.value += count;
    for (const name of line.slice(0, cut).split(";")) {
      if (!node.children.has(name)) node.children.set(name, { name, value: 0, children: new Map() });
      node = node.children.get(name);
      node.value += count;
    }
  }
  return root;
}

const DEPTH = 60;

function drawFlame(body, collapsed) {
  const root = treeOf(collapsed);
  if (!root.value) return nothing(body, "The profile is empty");
  const box = made("div", "flame");
  const show = (top) => {
    box.replaceChildren();
    const place = (node, left, depth) => {
      const width = (node.value / top.value) * 100;
      if (width < 0.25 || depth > DEPTH) return;
      const bar = made("div", "", node.name);
      bar.style.left = `${left}%`;
      bar.style.width = `${width}%`;
      bar.style.top = `${depth * 17}px`;
      bar.style.background = `hsl(${20 + hash(node.name) % 40}, 80%, ${58 + hash(node.name) % 14}%)`;
      bar.title = `${node.name}\n${((node.value / root.value) * 100).toFixed(1)} % of all`;
      bar.addEventListener("click", () => show(depth === 0 && node !== root ? root : node));
      box.append(bar);
      let at = left;
      for (const child of [...node.children.values()].sort((a, b) => (a.name < b.name ? -1 : 1))) {
        place(child, at, depth + 1);
        at += (child.value / top.value) * 100;
      }
    };
    place(top, 0, 0);
  };
  show(root);
  body.replaceChildren(box);
  return undefined;
}

function hash(text) {
  let number = 7;
  for (let index = 0; index < text.length; index += 1) number = (number * 31 + text.charCodeAt(index)) % 9973;
  return number;
}
