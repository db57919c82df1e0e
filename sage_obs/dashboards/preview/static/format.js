// Numbers with units, names of series, and what variables stand for. Nothing here touches the page.
"use strict";

const COLOURS = { green: "#73bf69", yellow: "#f2cc0c", red: "#f2495c", blue: "#5794f2", orange: "#ff9830" };
const PALETTE = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#37872d", "#fade2a", "#8ab8ff", "#ffb357", "#ff7383", "#ca95e5"];

function scaled(value, steps, base) {
  let index = 0;
  let left = Math.abs(value);
  while (left >= base && index < steps.length - 1) { left /= base; index += 1; }
  return trimmed(Math.sign(value) * left) + steps[index];
}

function trimmed(value) {
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return String(Number(value.toFixed(digits)));
}

function seconds(value) {
  const size = Math.abs(value);
  if (size === 0) return "0 s";
  if (size < 1e-3) return trimmed(value * 1e6) + " µs";
  if (size < 1) return trimmed(value * 1e3) + " ms";
  if (size < 120) return trimmed(value) + " s";
  if (size < 7200) return trimmed(value / 60) + " min";
  if (size < 172800) return trimmed(value / 3600) + " h";
  if (size < 63072000) return trimmed(value / 86400) + " d";
  return trimmed(value / 31536000) + " y";
}

// A number as Grafana writes it in this unit, nearly.
function written(value, unit) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "-∞";
  switch (unit) {
    case "percentunit": return trimmed(value * 100) + " %";
    case "s": return seconds(value);
    case "h": return seconds(value * 3600);
    case "bytes": return scaled(value, [" B", " KiB", " MiB", " GiB", " TiB"], 1024);
    case "Bps": return scaled(value, [" B/s", " kB/s", " MB/s", " GB/s"], 1000);
    case "reqps": return scaled(value, ["", " K", " M"], 1000) + "/s";
    case "currencyUSD": return "$" + scaled(value, ["", " K", " M"], 1000);
    default:
      if (unit && unit.startsWith("suffix:")) return trimmed(value) + unit.slice(7);
      return scaled(value, ["", " K", " Mil", " Bil"], 1000);
  }
}

// The colour of the highest threshold that the value has reached.
function coloured(value, steps) {
  let found = null;
  for (const step of steps || []) if (step.value === null || step.value === undefined || value >= step.value) found = step.color;
  return COLOURS[found] || found || COLOURS.green;
}

function named(format, labels) {
  if (format && format !== "__auto") return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] || "").trim() || "value";
  const pairs = Object.entries(labels).filter(([name]) => name !== "__name__");
  return pairs.map(([name, value]) => `${name}=${value}`).join(", ") || labels.__name__ || "value";
}

const SPECIAL = /[\\^$.*+?()[\]{}|]/g;

// What a variable is in a query: one value as it is where it stands alone, several as a regular expression within a string.
function expanded(variable) {
  const chosen = variable.chosen;
  if (variable.type !== "query" && variable.type !== "custom") return String(chosen[0] ?? "");
  if (chosen.includes("$__all")) return variable.allValue || ".*";
  const quoted = chosen.map((value) => value.replace(SPECIAL, "\\$&").replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n"));
  return quoted.length === 1 ? quoted[0] : `(${quoted.join("|")})`;
}

function substituted(text, values) {
  return text.replace(/\$\{(\w+)(?::\w+)?\}|\$(\w+)/g, (whole, braced, plain) => {
    const name = braced || plain;
    return Object.hasOwn(values, name) ? values[name] : whole;
  });
}

const NICE = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400];

function niceStep(range, points) {
  return NICE.find((step) => range / step <= points) || 86400;
}

// A link of a board is followed only where it leads to a page: never a script.
function safe(address) {
  try {
    const url = new URL(address, window.location.href);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch (error) {
    return null;
  }
}
