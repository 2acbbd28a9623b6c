"use strict";
// Starts the page: charts, controls, contents, and what changes on paper.

function startControls() {
  const controls = document.getElementById("controls");
  controls.hidden = false;
  controls.classList.toggle("stays", HAS_SEEDS);
  document.getElementById("folding").hidden = !HAS_SEEDS;
  document.getElementById("folding").addEventListener("change", (event) => fold(event.target.value === "folded"));
  document.getElementById("theme").addEventListener("change", (event) => {
    document.documentElement.dataset.theme = event.target.value;
  });
}

function startContents() {
  const links = [...document.querySelectorAll("main section[id] > h2")].map((heading) => {
    const link = el("a", { href: `#${heading.parentElement.id}` }, heading.textContent);
    return el("li", {}, link);
  });
  document.getElementById("contents").append(el("ul", {}, links));
}

function startCopying() {
  document.querySelectorAll("button.source").forEach((source) => source.addEventListener("click", () => copy(source.dataset.source, source.dataset.source)));
  document.querySelectorAll("button[data-copy]").forEach((one) =>
    one.addEventListener("click", () => copy(document.querySelector(one.dataset.copy).textContent, "the command")));
  document.querySelectorAll("table[data-export]").forEach((table) => {
    table.parentElement.after(el("div", { class: "bar" }, exports(table.dataset.export, () => tableOnPage(table))));
  });
}

const ABOUT_RUNS = [
  ["run", (run) => run.name], ["run_id", (run) => run.id], ["seed", (run) => run.seed ?? ""],
  ["entry point", (run) => run.entrypoint], ["status", (run) => run.status], ["started", (run) => run.started],
  ["commit", (run) => run.commit], ["coverage", (run) => run.coverage],
  ["logged also by", (run) => run.holders.filter((id) => id !== run.id).join(" ")],
];

/** Ids in a type of their own, which breaks anywhere. */
function cellOfRun(cell, column) {
  const ids = ABOUT_RUNS[column][0] === "run_id" || ABOUT_RUNS[column][0] === "logged also by";
  return el("td", {}, ids && cell ? String(cell).split(" ").map((id) => el("code", {}, id)) : String(cell));
}

/** The runs of the page, the first of them in a table; the export has all. */
function startRuns(place) {
  const rows = DATA.runs.map((run) => ABOUT_RUNS.map(([, of]) => of(run)));
  const table = { name: "runs of the report", head: ABOUT_RUNS.map(([head]) => head), rows };
  const shown = rows.slice(0, ON_PAPER).map((row) => el("tr", {}, row.map(cellOfRun)));
  const head = el("tr", {}, table.head.map((name) => el("th", { scope: "col" }, name)));
  place.append(
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, shown))),
    rows.length > ON_PAPER ? el("p", { class: "note" }, `The first ${ON_PAPER} of ${rows.length} runs; the export has all.`) : "",
    el("div", { class: "bar" }, exports(table.name, () => table)),
  );
}

const FOLDED_AGAIN = [];
/** Paper shows everything: what is folded or not yet drawn, and more rows. */
function toPaper() {
  document.querySelectorAll("details:not([open]):not(.no-print)").forEach((details) => {
    details.open = true;
    FOLDED_AGAIN.push(details);
  });
  TABLE.rows = ON_PAPER;
  STATE.paper = true;
  changed();
  drawAll();
  const pictures = document.getElementById("pictures-body");
  if (pictures) pictures.replaceChildren(...picturesOnPaper());
}

function fromPaper() {
  FOLDED_AGAIN.splice(0).forEach((details) => (details.open = false));
  TABLE.rows = ROWS;
  STATE.paper = false;
  changed();
  const pictures = document.getElementById("pictures-body");
  if (pictures) { pictures.replaceChildren(); startPictures(pictures); }
}

startControls();
document.getElementById("sections").append(...DATA.sections.map(section));
startTable(document.getElementById("values-body"));
if (DATA.pictures.length) startPictures(document.getElementById("pictures-body"));
startRuns(document.getElementById("runs-body"));
startContents();
startCopying();
addEventListener("beforeprint", toPaper);
addEventListener("afterprint", fromPaper);
performance.mark("page ready");
// The first chart is there before anybody scrolls to it.
const [FIRST_CHART] = UNDRAWN.keys();
if (FIRST_CHART) setTimeout(() => drawNow(FIRST_CHART));
