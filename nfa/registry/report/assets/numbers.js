"use strict";
// What the page holds. Arrays are decoded when they are first asked for.

const DATA = JSON.parse(document.getElementById("numbers").textContent);
const KEYS = new Map(DATA.keys.map((key) => [key.key, key]));
const HAS_SEEDS = DATA.groups.some((group) => group.runs.length > 1);
const DECODED = new WeakMap();

/** The numbers that are written in base64: of float64 after "8:", or else of float32. */
function floats(text) {
  const long = text.startsWith("8:");
  const bytes = Uint8Array.from(atob(long ? text.slice(2) : text), (letter) => letter.charCodeAt(0));
  return long ? new Float64Array(bytes.buffer) : new Float32Array(bytes.buffer);
}

/** A list of a curve, as "values" or "se"; undefined where the curve has no such list. */
function listOf(curve, part) {
  if (curve[part] === undefined) return undefined;
  if (!DECODED.has(curve)) DECODED.set(curve, new Map());
  const lists = DECODED.get(curve);
  if (!lists.has(part)) lists.set(part, floats(curve[part]));
  return lists.get(part);
}

function stepsOf(curve) {
  return DATA.steps[curve.steps];
}

/** What is known of a key; of one that has last values only, hardly anything. */
function aboutKey(key) {
  return KEYS.get(key) ?? { key, title: key, site: "", relation: "", axis: key, limits: [null, null], logarithmic: false, better: "" };
}

const LATEST = new Map();
/** The last value and its step of a run; null where there is none. */
function latestOf(run, key) {
  if (!(key in DATA.latest.values)) return null;
  if (!LATEST.has(key)) LATEST.set(key, [floats(DATA.latest.values[key]), floats(DATA.latest.steps[key])]);
  const [values, steps] = LATEST.get(key);
  return Number.isFinite(values[run]) ? { value: values[run], step: steps[run] } : null;
}

/** A run is called as its group, with its seed if the group has several runs; its own name where that tells too little. */
function shortNames() {
  const names = DATA.runs.map((run) => run.name);
  for (const group of DATA.groups) {
    const seeds = new Set(group.runs.map((run) => DATA.runs[run].seed));
    if (group.runs.length === 1) names[group.runs[0]] = group.name;
    else if (seeds.size === group.runs.length) group.runs.forEach((run) => (names[run] = `${group.name}, seed ${DATA.runs[run].seed}`));
  }
  return names.map((name, run) => (names.indexOf(name) === names.lastIndexOf(name) ? name : DATA.runs[run].name));
}

const SHORT_NAMES = shortNames();
const RUN_ITEMS = DATA.runs.map((_, index) => ({ index, name: SHORT_NAMES[index], runs: [index] }));
const GROUP_ITEMS = DATA.groups.map((group, index) => ({ index, name: group.name, runs: group.runs, folded: true }));

/** The curve of a run, or the mean of a group; a group of one run has that run's. */
function curveOf(item, key) {
  if (item.folded && item.runs.length > 1) return DATA.means[key]?.[item.index] ?? null;
  return DATA.curves[key]?.[item.runs[0]] ?? null;
}

/** The id of the run that has logged a key of a run: the run itself or an analysis of it. */
function holderOf(run, key) {
  const { id, holders } = DATA.runs[run];
  return holders[DATA.curves[key]?.[run]?.of ?? DATA.latest.of[key]?.[run] ?? 0] ?? id;
}

/** The ids of all runs that have logged what a mean is of. */
function holdersOf(item, key) {
  return item.runs.map((run) => holderOf(run, key)).join(" ");
}

/** A number as a reader wants it: four digits that count, whole numbers with all of theirs, and a minus sign that is one. */
function written(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Number.isSafeInteger(value)) return String(value).replace("-", "−");
  const size = Math.abs(value);
  const text = size >= 1e6 || size < 1e-4 ? value.toExponential(3) : String(Number(value.toPrecision(4)));
  return text.replaceAll("-", "−");
}

/** A number with as many digits as tell its float32 from all others, at most nine; a whole number with all of its own. */
function exact(value) {
  if (!Number.isFinite(value) || Number.isSafeInteger(value)) return Number.isFinite(value) ? String(value) : "";
  const digits = [7, 8].find((count) => Math.fround(Number(value.toPrecision(count))) === value) ?? 9;
  return String(Number(value.toPrecision(digits)));
}

/** A value kept within what is possible for a key. */
function within(value, key) {
  const [least, greatest] = aboutKey(key).limits;
  return Math.min(Math.max(value, least ?? -Infinity), greatest ?? Infinity);
}

/** The middle of what a t-distribution with these degrees of freedom leaves out at 95 %. */
function tQuantile(freedom) {
  const known = [12.706, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.306, 2.2622, 2.2281];
  if (freedom <= known.length) return known[freedom - 1];
  const z = 1.959964;
  return z + (z ** 3 + z) / (4 * freedom) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * freedom ** 2);
}

/** Names in one line, no more than three of them. */
function few(names) {
  return names.length > 3 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", ");
}

/** `count` places of a list of this length, evenly spaced, the first and the last among them. */
function evenly(length, count) {
  if (length <= count) return d3.range(length);
  return d3.range(count).map((place) => Math.round((place * (length - 1)) / (count - 1)));
}
