"use strict";
// The table of values: a row for each run or group, a column for each key that is chosen.

const ROWS = 50; // at once on the screen
const ON_PAPER = 200;
const COLUMNS_AT_FIRST = 6;
const NAME = ""; // the column of names, to sort by

function keysToChoose() {
  const others = Object.keys(DATA.latest.values).filter((key) => !KEYS.has(key)).sort();
  return [...DATA.keys.map((key) => key.key), ...others];
}

/** The columns at first: losses and scores. */
function keysAtFirst() {
  const plain = keysToChoose().filter((key) => !aboutKey(key).relation);
  const main = plain.filter((key) => aboutKey(key).better || key.startsWith("test/"));
  return ([main, plain, keysToChoose()].find((keys) => keys.length) ?? []).slice(0, COLUMNS_AT_FIRST);
}

const TABLE = {
  keys: keysAtFirst(),
  wanted: { at: "last", of: "", step: d3.max(DATA.steps, (steps) => d3.max(steps)) ?? 0 },
  sort: { key: null, descending: false }, page: 0, filter: "", rows: ROWS, picked: new Map(),
};

/** What stands in a cell, remembered until something else is wanted. */
function cellOf(item, key) {
  if (!TABLE.picked.has(key)) TABLE.picked.set(key, new Map());
  const column = TABLE.picked.get(key);
  if (!column.has(item.index)) column.set(item.index, pickOf(item, key, TABLE.wanted));
  return column.get(item.index);
}

/** Rows that the filter leaves, in order; what has no value comes last either way. */
function sortedItems() {
  const words = TABLE.filter.trim().toLowerCase();
  const found = items().filter((item) => !words || [item.name, ...item.runs.flatMap((run) => [DATA.runs[run].name, DATA.runs[run].id])].some((text) => text.toLowerCase().includes(words)));
  const { key, descending } = TABLE.sort;
  if (key === null) return found;
  const order = descending ? d3.descending : d3.ascending;
  if (key === NAME) return d3.sort(found, (a, b) => order(a.name, b.name));
  return d3.sort(found, (a, b) => {
    const [first, second] = [cellOf(a, key), cellOf(b, key)];
    return !first || !second ? Number(!first) - Number(!second) : order(first.value, second.value);
  });
}

function sortBy(key) {
  const again = TABLE.sort.key === key;
  const highFirst = key !== NAME && aboutKey(key).better === "high";
  TABLE.sort = { key, descending: again ? !TABLE.sort.descending : highFirst };
  TABLE.page = 0;
  drawTable();
  document.querySelector(`#values-table button[data-key="${CSS.escape(key)}"]`)?.focus();
}

function heading(key, text, kind) {
  const sorted = TABLE.sort.key === key ? (TABLE.sort.descending ? "descending" : "ascending") : "none";
  return el("th", { scope: "col", class: kind, "aria-sort": sorted }, button("", () => sortBy(key), { "data-key": key, title: "Sort" }, broken(text)));
}

/** A key that may break after its slashes and underscores. */
function broken(text) {
  return text.split(/(?<=[/_.])/).flatMap((part) => [part, el("wbr")]);
}

function rowOfTable(item) {
  const cells = TABLE.keys.map((key) => valueCell(item, key));
  return el("tr", {}, el("td", {}, tickBox(item)), el("th", { scope: "row" }, nameOf(item)), cells);
}

function nameOf(item) {
  const ids = item.runs.map((run) => DATA.runs[run].id);
  const whole = item.runs.map((run) => `${DATA.runs[run].name}, ${DATA.runs[run].id}`).join("\n");
  const more = item.runs.length > 1 ? `${item.runs.length} seeds` : ids[0].slice(0, 8);
  return [isTicked(item) ? swatch(item) : null, ` ${item.name} `, el("span", { class: "quiet", title: whole }, more)];
}

function tickBox(item) {
  const box = el("input", { type: "checkbox", "aria-label": `Draw in charts: ${item.name}`, change: (event) => {
    if (tick(item, event.target.checked)) document.getElementById(`tick-${item.index}`)?.focus();
    else { event.target.checked = false; say(`No more than ${MOST} in a chart: untick one first.`); }
  } });
  box.id = `tick-${item.index}`;
  box.checked = isTicked(item);
  return box;
}

function valueCell(item, key) {
  const found = cellOf(item, key);
  if (!found) return el("td", { class: "number", title: whyNot(item, key) }, "–");
  return el("td", { class: "number", title: `run ${found.holder}, ${key}, ${stepInWords(found)}` }, valueInWords(found), el("small", {}, stepInWords(found)));
}

function whyNot(item, key) {
  if (item.folded && DATA.groups[item.index].apart?.includes(key)) return "The runs have measured it in different ways: a mean over them would mix these.";
  const have = item.runs.filter((run) => pick(run, key, TABLE.wanted)).length;
  if (have) return `${have} of ${item.runs.length} runs have a value: a mean over some of them would be biased.`;
  const last = lastOnly(key) ? latestOf(item.runs[0], key) : null;
  if (last) return `Only the last value is on this page, at step ${last.step}.`;
  const unknown = TABLE.wanted.at === "best" && !aboutKey(TABLE.wanted.of || key).better;
  return unknown ? "Nothing tells whether high or low values of this key are better." : "There is no value.";
}

/** Draws the rows of the page that is shown. */
function drawTable() {
  const all = sortedItems();
  const last = Math.max(0, Math.ceil(all.length / ROWS) - 1);
  TABLE.page = Math.min(TABLE.page, last);
  const from = TABLE.rows === ROWS ? TABLE.page * ROWS : 0;
  const head = el("tr", {}, el("th", { scope: "col", class: "tick" }, "charts"), heading(NAME, STATE.folded ? "group" : "run", ""), TABLE.keys.map((key) => heading(key, key, "number")));
  document.getElementById("values-table").replaceChildren(
    el("caption", {}, captionOf()), el("thead", {}, head), el("tbody", {}, all.slice(from, from + TABLE.rows).map(rowOfTable)));
  document.getElementById("values-pages").replaceChildren(...pagesOf(all.length, last));
}

function captionOf() {
  const { at, of, step } = TABLE.wanted;
  const where = { last: "the last", best: of ? `those at the best step by ${of}` : "the best of each key", step: `those at step ${step}, or else at the nearest earlier step, which is named`, lowest: "the lowest", highest: "the highest" };
  return `Values: ${where[at]}${STATE.folded ? "; means over seeds ± half of the 95 % t-interval, or with its ends where it is cut at what is possible; of two seeds with both values" : ""}`;
}

function pagesOf(count, last) {
  if (count <= ROWS) return [];
  const go = (page) => () => { TABLE.page = page; drawTable(); document.getElementById("values-pages").querySelector("button:not(:disabled)")?.focus(); };
  const from = TABLE.page * ROWS;
  return [
    button("Previous", go(TABLE.page - 1), { disabled: TABLE.page === 0 }), button("Next", go(TABLE.page + 1), { disabled: TABLE.page === last }),
    el("span", { class: "note" }, `Rows ${from + 1} to ${Math.min(from + ROWS, count)} of ${count}.`),
  ];
}

function want(change) {
  Object.assign(TABLE.wanted, change);
  forget();
}

function forget() {
  TABLE.picked.clear();
  TABLE.page = 0;
  drawTable();
}

/** What may be wanted: where in a series, by which key the best, at which step. */
function wantedControls() {
  const rated = DATA.keys.filter((key) => key.better).map((key) => [key.key, key.key]);
  const of = select("by", [["", "each key itself"], ...rated], "", (value) => want({ of: value }));
  const step = el("label", {}, "step ", el("input", { type: "number", min: 0, value: TABLE.wanted.step, input: (event) => want({ step: Number(event.target.value) }) }));
  const show = (at) => { of.hidden = at !== "best"; step.hidden = at !== "step"; };
  show("last");
  const at = select("Values", WHERE, "last", (value) => { show(value); want({ at: value }); });
  const filter = el("input", { type: "search", placeholder: "filter rows", "aria-label": "Filter rows by name or run id", input: (event) => { TABLE.filter = event.target.value; TABLE.page = 0; drawTable(); } });
  return el("div", { class: "bar" }, at, of, step, filter);
}

function startTable(place) {
  const choices = keysToChoose();
  const names = choices.map((key) => [key, lastOnly(key) ? `${key} (last value only)` : key]);
  place.append(
    el("p", { class: "note" }, `Ticked rows are drawn in the charts, no more than ${MOST} at once. A heading sorts.`),
    wantedControls(),
    chooser({ title: "Choose columns", names, chosen: TABLE.keys, most: 24, changed: (keys) => { TABLE.keys = keys; drawTable(); } }),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Values of all runs" }, el("table", { id: "values-table" })),
    el("div", { class: "bar" }, exports("values of all runs", valuesTable), el("span", { class: "bar", id: "values-pages" })),
  );
  drawTable();
  whenChanged(() => { TABLE.picked.clear(); drawTable(); });
}

/** All rows, in the order of the table; LaTeX has the sources as comments, CSV as columns. */
function valuesTable(form) {
  const found = sortedItems();
  const first = STATE.folded ? "group" : "run";
  const cells = (item) => TABLE.keys.flatMap((key) => cellsOf(cellOf(item, key), form));
  const parts = form === "latex" ? [""] : STATE.folded ? ["", " step", " note", " low", " high", " lowest", " highest", " n", " run_id"] : ["", " step", " note", " run_id"];
  return {
    name: captionOf(), head: [first, ...TABLE.keys.flatMap((key) => parts.map((part) => `${key}${part}`))],
    rows: found.map((item) => [item.name, ...cells(item)]),
    comments: found.flatMap((item) => TABLE.keys.map((key) => [item, key, cellOf(item, key)])).filter(([, , one]) => one)
      .map(([item, key, one]) => `${item.name}: ${key}, ${stepInWords(one)}, run ${one.holder}`),
  };
}

function cellsOf(found, form) {
  if (form === "latex") return [found ? (found.n === undefined ? found.value : valueInWords(found)) : "–"];
  if (!found) return STATE.folded ? [NaN, "", "", NaN, NaN, NaN, NaN, NaN, ""] : [NaN, "", "", ""];
  const step = found.lastStep !== undefined && found.lastStep !== found.step ? `${found.step}-${found.lastStep}` : found.step;
  if (!STATE.folded) return [found.value, step, found.note ?? "", found.holder];
  return [found.value, step, found.note ?? "", found.low ?? NaN, found.high ?? NaN, found.lowest ?? found.value, found.highest ?? found.value, found.n ?? 1, found.holder];
}
