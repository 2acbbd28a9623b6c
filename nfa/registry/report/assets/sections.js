"use strict";
// The sections with charts: each has a legend, heat maps of its relations, and curves of its keys.

/** A section in place; its charts are made anew whenever what the page shows changes. */
function section(one, place) {
  const body = el("div");
  const element = el("section", { id: `section-${place}` }, el("h2", {}, one.title), one.sentence ? el("p", {}, one.sentence) : null,
    one.missing ? el("p", { class: "missing" }, one.missing) : null, body);
  const blocks = blocksOf(one).map((block) => ({ ...block, element: el("div") }));
  body.append(...blocks.map((block) => block.element));
  const draw = () => blocks.forEach(drawBlock);
  draw();
  whenChanged(draw);
  return element;
}

/** Keys of no relation together; then each relation with all of its sites. */
function blocksOf(one) {
  const plain = one.keys.filter((key) => !aboutKey(key).relation);
  const named = [...new Set([...one.relations, ...one.keys.map((key) => aboutKey(key).relation).filter(Boolean)])];
  const relations = named.map((relation) => ({
    relation, heat: one.relations.includes(relation), keys: DATA.keys.filter((key) => key.relation === relation).map((key) => key.key),
  }));
  const blocks = [{ relation: "", heat: false, keys: plain }, ...relations].filter((block) => block.keys.length);
  return blocks.map((block) => ({ ...block, only: blocks.length === 1, state: { keys: evenly(block.keys.length, MOST).map((place) => block.keys[place]) } }));
}

function drawBlock(block) {
  const shown = shownItems();
  const parts = [block.relation && !block.only ? el("h3", {}, relationTitle(block)) : null];
  if (!shown.length) parts.push(el("p", { class: "missing" }, "No run is ticked in the table of values."));
  else {
    if (block.heat) parts.push(heatMaps(block, shown));
    parts.push(curveCharts(block, shown));
  }
  block.element.replaceChildren(...parts.filter(Boolean));
}

function relationTitle(block) {
  const { axis } = aboutKey(block.keys[0]);
  return axis ? axis[0].toUpperCase() + axis.slice(1) : block.relation;
}

function heatMaps(block, shown) {
  const holder = el("div", { class: "drawing", style: "--height: 300px" });
  lazily(holder, () => {
    const heat = heatOf(block.relation, block.keys, shown);
    const panels = el("div", { class: shown.length > 4 ? "panels" : "panels wide" });
    holder.replaceChildren(heatLegend(heat), panels, el("div", { class: "bar" }, exports(`heat maps of ${block.relation}`, () => longTable(`heat maps of ${block.relation}`, block.keys, shown))));
    heat.maps.forEach((map) => panels.append(el("figure", {}, el("figcaption", {}, map.item.name), el("div"))));
    const { width } = sizeOf(panels.firstChild, shown.length > 4 ? SMALL : LARGE);
    heat.maps.forEach((map, place) => panels.children[place].lastChild.append(heatSvg(heat, map, width)));
    drawn();
  });
  return holder;
}

/** Panels of curves, no more than twelve at once, with a list to choose others. */
function curveCharts(block, shown) {
  const holder = el("div");
  const draw = () => holder.replaceChildren(...charts(block, shown));
  draw();
  if (block.keys.length <= MOST) return holder;
  const what = block.relation ? "sites" : "keys";
  const names = block.keys.map((key) => [key, block.relation ? aboutKey(key).site : aboutKey(key).title]);
  const choose = chooser({
    title: `Choose ${what}: ${MOST} of ${names.length} are drawn at once`, names, chosen: block.state.keys, most: MOST,
    changed: (keys) => { block.state.keys = keys; draw(); },
  });
  return el("div", {}, choose, holder);
}

function charts(block, shown) {
  const keys = block.state.keys;
  const groups = d3.groups(keys, (key) => scaleName(aboutKey(key)));
  const grid = el("div", { class: block.relation ? "panels" : "panels wide" });
  const scales = new Map();
  const scaleOf = (own) => {
    const name = scaleName(aboutKey(own[0]));
    if (!scales.has(name)) scales.set(name, scalesOf(sameScale(block, own).map((key) => panelOf(key, shown, items()))));
    return scales.get(name);
  };
  groups.forEach(([, own]) => own.forEach((key) => grid.append(chart(block, key, shown, () => scaleOf(own)))));
  const name = block.relation ? `curves of ${block.relation}` : `curves of ${few(keys)}`;
  return [legend(keys, shown), grid, el("div", { class: "bar" }, exports(name, () => longTable(name, keys, shown)))];
}

/** Keys of one quantity have one scale, whichever of them are drawn. */
function scaleName(about) {
  return [about.relation, about.axis, about.logarithmic, about.limits].join("|");
}

function sameScale(block, own) {
  const name = scaleName(aboutKey(own[0]));
  return block.keys.filter((key) => scaleName(aboutKey(key)) === name);
}

function chart(block, key, shown, scaleOf) {
  const about = aboutKey(key);
  const sizes = block.relation ? SMALL : LARGE;
  const place = el("div", { class: "drawing", style: `--height: ${sizes.screen[1]}px` });
  const missing = shown.filter((item) => !curveOf(item, key)).map((item) => item.name);
  const note = missing.length ? el("p", { class: "note" }, `No values of ${few(missing)}.`) : null;
  const same = about.axis.toLowerCase() === about.title.toLowerCase();
  const axis = block.relation || same ? null : el("span", { class: "quiet" }, ` ${about.axis}`);
  const figure = el("figure", {}, el("figcaption", {}, block.relation ? about.site : about.title, axis), place, note);
  lazily(place, () => {
    place.replaceChildren(curvesSvg(panelOf(key, shown, items()), scaleOf(), sizeOf(place, sizes)));
    drawn();
  });
  return figure;
}

/** Which line is whose, and what bands and thin lines are. */
function legend(keys, shown) {
  const curves = shown.flatMap((item) => keys.map((key) => curveOf(item, key))).filter(Boolean);
  const has = (part) => curves.some((curve) => curve[part] !== undefined);
  const names = shown.map((item) => el("li", {}, swatch(item), item.name));
  const all = items().length;
  const notes = [
    shown.some((item) => keys.some((key) => membersOf(item, key).length)) ? "Thin lines: the runs of a mean that has no interval." : "",
    has("low") ? "Bands of means: 95 % t-interval over seeds." : "",
    has("se") ? `Bands of ${has("low") ? "single runs" : "lines"}: ± 2 standard errors${has("unbiased") ? " around the unbiased value" : ""}.` : "",
    has("chance") ? "Grey: level of chance ± 2 standard deviations." : "",
    has("shared") ? "Dotted: level of shared weights." : "",
    keys.some((key) => aboutKey(key).logarithmic) ? "A logarithmic axis leaves out what is not above zero; a band that reaches there ends at the foot of the axis." : "",
    thinnedInWords(curves),
    all > MOST ? `Grey bands: lowest to highest, 10 to 90 %, and the median of all ${all} ${STATE.folded ? "groups" : "runs"}; lines: those that are ticked in the table of values.` : "",
  ];
  const choose = el("li", { class: "no-print" }, el("a", { href: "#values" }, "choose"));
  return el("div", {}, el("ul", { class: "legend" }, names, all > 1 ? choose : null), el("p", { class: "note" }, notes.filter(Boolean).join(" ")));
}

/** Of how many values the thinned ones of these curves are. */
function thinnedInWords(curves) {
  const thinned = curves.filter((curve) => curve.points);
  if (!thinned.length) return "";
  const [here, logged] = [d3.sum(thinned, (curve) => stepsOf(curve).length), d3.sum(thinned, (curve) => curve.points)];
  const series = thinned.length === 1 ? "a long series" : `${thinned.length} long series`;
  return `${d3.format(",")(here)} of ${d3.format(",")(logged)} values of ${series} are drawn: of each stretch the lowest and the highest.`;
}

const PARTS = ["values", "unbiased", "se", "low", "high", "n", "chance", "chance_sd", "shared", "shared_sd"];

/** All values of some keys and runs, one a row, with the run that has logged it, its key and its step; of thinned series
 * those that are here, with the number of all. */
function longTable(name, keys, shown) {
  const pairs = shown.flatMap((item) => keys.map((key) => ({ item, key, curve: curveOf(item, key) }))).filter((pair) => pair.curve);
  const parts = PARTS.filter((part) => pairs.some(({ curve }) => curve[part] !== undefined));
  const thinned = pairs.some(({ curve }) => curve.points);
  const rows = pairs.flatMap(({ item, key, curve }) => {
    const lists = parts.map((part) => listOf(curve, part));
    const whole = stepsOf(curve).map((step, place) => [item.name, holdersOf(item, key), key, step, ...lists.map((list) => (list ? list[place] : NaN)), ...(thinned ? [curve.points ?? stepsOf(curve).length] : [])]);
    return whole.filter((row) => Number.isFinite(row[4]));
  });
  return { name, head: [STATE.folded ? "group" : "run", "run_id", "key", "step", ...parts.map((part) => (part === "values" ? "value" : part)), ...(thinned ? ["values_logged"] : [])], rows };
}

/** Marks the first picture, for whoever measures how fast the page is. */
function drawn() {
  if (!performance.getEntriesByName("first chart").length) performance.mark("first chart");
}
