"use strict";
// Pictures of runs by step, all under one slider.

const PICTURES = { kind: "", step: 0, layout: "two", runs: [] };

function kindsOfPictures() {
  return [...new Set(DATA.pictures.map((series) => series.name))];
}

/** The name of a file as words. */
function kindInWords(kind) {
  return kind.replaceAll("_", " ");
}

function seriesOf(kind) {
  return DATA.pictures.filter((series) => series.name === kind);
}

/** The name of the run that has the pictures: one of the page, or one that compares those. */
function whose(series) {
  return series.whose ?? SHORT_NAMES[series.run];
}

/** Whether a kind has pictures of steps; a figure of a whole run has none. */
function isByStep(kind) {
  return seriesOf(kind).some((series) => series.by_step);
}

/** The picture at a step or the nearest earlier one; undefined where all are later. */
function pictureAt(series, step) {
  const place = d3.bisectRight(series.steps, step) - 1;
  return place < 0 ? undefined : { step: series.steps[place], address: series.pictures[place], inlined: series.inlined[place] };
}

/** Only addresses that a browser opens as a page become links; another one could be a script. */
function linkTo(address) {
  return /^(https?|file):/i.test(address) ? el("a", { href: address, rel: "noopener noreferrer" }, "the picture, in the store") : el("code", {}, address);
}

function pictureFigure(series) {
  const name = whose(series);
  const found = pictureAt(series, PICTURES.step);
  const caption = el("figcaption", {}, name, el("span", { class: "quiet" }, ` ${saidOf(series, found)}`));
  if (!found) return el("figure", {}, caption);
  const picture = found.inlined ? el("img", { src: found.address, alt: `${kindInWords(series.name)} of ${name}${series.by_step ? ` at step ${found.step}` : ""}`, load: stackIfWide }) : el("p", { class: "note" }, "Not on this page for want of room: ", linkTo(found.address));
  return el("figure", {}, caption, picture);
}

/** Wide pictures stand below one another, where they are large enough to be read. */
function stackIfWide(event) {
  const { naturalWidth, naturalHeight } = event.target;
  if (naturalWidth > 2 * naturalHeight && naturalWidth > 600) document.getElementById("pictures-shown").classList.add("stacked");
}

function saidOf(series, found) {
  if (!series.by_step) return "";
  if (!found) return `has no picture before step ${series.steps[0]}`;
  return found.step === PICTURES.step ? `step ${found.step}` : `step ${found.step}, the nearest earlier one: none at step ${PICTURES.step}`;
}

/** The series that are shown: two that are chosen, or up to twelve. */
function shownSeries() {
  const all = seriesOf(PICTURES.kind);
  if (PICTURES.layout === "all") return all.slice(0, MOST);
  return PICTURES.runs.map((run) => all.find((series) => series.run === run)).filter(Boolean);
}

function drawPictures() {
  const shown = shownSeries();
  const place = document.getElementById("pictures-shown");
  place.className = PICTURES.layout === "two" ? "shown two" : "shown";
  place.replaceChildren(...shown.map(pictureFigure));
}

/** The steps of all pictures of the kind, so that the slider stands only where something is. */
function stepsOfKind() {
  return d3.sort(new Set(seriesOf(PICTURES.kind).flatMap((series) => series.steps)));
}

/** At first the slider stands at the last step that has a picture on the page. */
function firstPlace(steps) {
  const inlined = shownSeries().flatMap((series) => series.steps.filter((_, place) => series.inlined[place]));
  return inlined.length ? steps.indexOf(d3.max(inlined)) : steps.length - 1;
}

function slider() {
  const steps = stepsOfKind();
  const told = el("output", { for: "pictures-step" });
  const move = (place) => {
    PICTURES.step = steps[place];
    told.textContent = `step ${PICTURES.step}`;
    input.setAttribute("aria-valuetext", told.textContent);
    drawPictures();
  };
  const input = el("input", { type: "range", id: "pictures-step", min: 0, max: steps.length - 1, value: steps.length - 1, input: (event) => move(Number(event.target.value)) });
  return { element: el("label", { class: "slider" }, "Step ", input, told), move: () => { input.value = firstPlace(steps); move(firstPlace(steps)); } };
}

function runChoice(place) {
  const options = seriesOf(PICTURES.kind).map((series) => [String(series.run), whose(series)]);
  return select(place === 0 ? "Left" : "Right", options, String(PICTURES.runs[place]), (value) => { PICTURES.runs[place] = Number(value); drawPictures(); });
}

/** All that depends on the kind of picture. */
function startKind(place, kind) {
  PICTURES.kind = kind;
  const runs = seriesOf(kind).map((series) => series.run);
  PICTURES.runs = [runs[0], runs.at(runs.length > 1 ? 1 : 0)].slice(0, Math.max(1, Math.min(2, runs.length)));
  const chosen = el("span", { class: "bar" }, PICTURES.runs.map((_, index) => runChoice(index)));
  const layout = select("Show", [["two", "two runs side by side"], ["all", `all runs, ${MOST} at most`]], PICTURES.layout, (value) => {
    PICTURES.layout = value;
    chosen.hidden = value === "all";
    drawPictures();
  });
  chosen.hidden = PICTURES.layout === "all";
  const { element, move } = slider();
  place.replaceChildren(el("div", { class: "bar" }, runs.length > 2 ? layout : null, chosen), isByStep(kind) ? element : "", el("div", { id: "pictures-shown" }));
  move();
}

function startPictures(place) {
  const inner = el("div");
  const kinds = kindsOfPictures();
  const first = kinds.find(isByStep) ?? kinds[0];
  place.append(select("Kind", kinds.map((kind) => [kind, kindInWords(kind)]), first, (kind) => startKind(inner, kind)), inner);
  startKind(inner, first);
}

/** On paper there is no slider: the last picture of the first run of every kind. */
function picturesOnPaper() {
  const firsts = kindsOfPictures().map((kind) => seriesOf(kind).find((series) => series.inlined.includes(true))).filter(Boolean);
  const all = d3.sum(DATA.pictures, (series) => series.steps.length);
  const note = all > firsts.length ? `One picture of each kind is printed, ${firsts.length} of ${d3.format(",")(all)}; the page on a screen has the others.` : "";
  return [el("p", { class: "note" }, note), el("div", { class: "shown" }, firsts.map(figureOnPaper))];
}

function figureOnPaper(series) {
  const last = series.inlined.lastIndexOf(true);
  const said = series.by_step ? `, step ${series.steps[last]}` : "";
  const spread = ({ target }) => target.naturalWidth > 2 * target.naturalHeight && target.closest("figure").classList.add("broad");
  const picture = el("img", { src: series.pictures[last], alt: "", load: spread });
  return el("figure", {}, el("figcaption", {}, kindInWords(series.name), el("span", { class: "quiet" }, ` ${whose(series)}${said}`)), picture);
}
