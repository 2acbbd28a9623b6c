"use strict";
// Heat maps of a relation: a row for each site, a column for each step.

const COLUMNS = 150; // most; of more steps, several share a column
const LEVELS = 64;

/** The steps of a relation, in stretches that each are a column: [first, last]. */
function columnsOf(keys, shown) {
  const sets = new Set(shown.flatMap((item) => keys.map((key) => curveOf(item, key)).filter(Boolean).map((curve) => curve.steps)));
  const steps = d3.sort(new Set([...sets].flatMap((set) => DATA.steps[set])));
  const each = Math.ceil(steps.length / COLUMNS) || 1;
  return d3.range(0, steps.length, each).map((from) => [steps[from], steps[Math.min(from + each, steps.length) - 1]]);
}

/** The last value of a curve in each column; NaN where there is none. */
function rowOf(item, key, columns) {
  const row = new Float64Array(columns.length).fill(NaN);
  const curve = curveOf(item, key);
  if (!curve) return row;
  const firsts = columns.map(([from]) => from);
  const values = listOf(curve, "values");
  stepsOf(curve).forEach((step, place) => {
    if (Number.isFinite(values[place])) row[d3.bisectRight(firsts, step) - 1] = values[place];
  });
  return row;
}

/** Names without what all of them begin with, so that their differences can be read. */
function shortened(names, most = 20) {
  const parts = names.map((name) => name.split("."));
  let same = 0;
  while (names.length > 1 && parts.every((part) => part.length > same + 1 && part[same] === parts[0][same])) same += 1;
  return parts.map((part) => part.slice(same).join(".")).map((name) => (name.length > most ? `…${name.slice(1 - most)}` : name));
}

/** All heat maps of a relation, with one colour scale. */
function heatOf(relation, keys, shown) {
  const columns = columnsOf(keys, shown);
  const maps = shown.map((item) => ({ item, rows: keys.map((key) => rowOf(item, key, columns)) }));
  const [from, to] = d3.extent(maps.flatMap((map) => map.rows.flatMap((row) => [...row].filter(Number.isFinite))));
  const about = aboutKey(keys[0]);
  const ends = about.limits[0] !== null && about.limits[0] <= 0 ? d3.extent([0, from, to]) : [from, to];
  return { relation, keys, sites: keys.map((key) => aboutKey(key).site), columns, maps, about, domain: rounded(...ends, about.limits) };
}

function colourAt(share) {
  return d3.interpolateViridis(Math.min(Math.max(share, 0), 1));
}

/** The cells of equal colour as one path each: few elements, sharp on paper. */
function cellPaths(rows, [from, to], width, height) {
  const paths = new Map();
  rows.forEach((row, y) => row.forEach((value, x) => {
    const level = Number.isFinite(value) ? Math.round(((value - from) / (to - from || 1)) * LEVELS) : "none";
    const cell = `M${(x * width).toFixed(2)} ${y * height}h${(width + 0.4).toFixed(2)}v${height}h${(-width - 0.4).toFixed(2)}z`;
    paths.set(level, (paths.get(level) ?? "") + cell);
  }));
  return paths;
}

function hatching(svg, id) {
  const pattern = svg.append("pattern").attr("id", id).attr("width", 5).attr("height", 5)
    .attr("patternUnits", "userSpaceOnUse").attr("patternTransform", "rotate(45)");
  pattern.append("line").attr("y2", 5).attr("stroke-width", 1.4).style("stroke", "var(--grey)");
}

function heatSvg(heat, map, fullWidth) {
  const labels = shortened(heat.sites);
  const left = 12 + 6.4 * d3.max(labels, (label) => label.length);
  const cell = { width: (fullWidth - left - 14) / heat.columns.length, height: Math.min(Math.max(Math.round(220 / labels.length), 7), 20) };
  const height = cell.height * labels.length;
  const svg = d3.create("svg").attr("viewBox", [0, 0, fullWidth, height + 38]).attr("width", fullWidth).attr("height", height + 38)
    .attr("role", "img").attr("aria-label", heatInWords(heat, map));
  const id = newId("hatching");
  hatching(svg, id);
  const cells = svg.append("g").attr("transform", `translate(${left},2)`).attr("shape-rendering", "crispEdges");
  for (const [level, path] of cellPaths(map.rows, heat.domain, cell.width, cell.height)) {
    cells.append("path").attr("d", path).attr("fill", level === "none" ? `url(#${id})` : colourAt(level / LEVELS));
  }
  rowLabels(svg, labels, left, cell);
  columnLabels(svg, heat, left, cell, height, fullWidth);
  telling(svg, cells, heat, map, cell);
  return svg.node();
}

function rowLabels(svg, labels, left, cell) {
  const every = Math.ceil(11 / cell.height);
  svg.append("g").attr("fill", "currentColor").attr("font-size", 11).attr("text-anchor", "end").selectAll("text")
    .data(labels).join("text").attr("x", left - 6).attr("y", (_, row) => 2 + (row + 0.5) * cell.height).attr("dy", "0.35em")
    .text((label, row) => (row % every === 0 ? label : ""));
}

function columnLabels(svg, heat, left, cell, height, fullWidth) {
  const most = Math.max(2, Math.floor((cell.width * heat.columns.length) / 34));
  const group = svg.append("g").attr("fill", "currentColor").attr("font-size", 11).attr("text-anchor", "middle");
  const every = Math.ceil(heat.columns.length / most);
  for (const place of d3.range(0, heat.columns.length, every)) {
    group.append("text").attr("x", left + (place + 0.5) * cell.width).attr("y", height + 16).text(heat.columns[place][0]);
  }
  const unit = unitOf({ series: heat.maps });
  group.append("text").attr("x", fullWidth - 14).attr("y", height + 32).attr("text-anchor", "end").attr("class", "told").text(fullWidth < 260 ? unit : `${unit}, one column for each measurement`);
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Tells the value of the cell that one points at, or goes to with the arrow keys, in place of the label below. */
function telling(svg, cells, heat, map, cell) {
  const label = svg.select(".told");
  const before = label.text();
  const frame = cells.append("rect").attr("width", cell.width).attr("height", cell.height).attr("fill", "none")
    .attr("stroke", "#fff").attr("stroke-width", 2).attr("display", "none");
  let at = [0, 0];
  const go = (column, row) => {
    if (!heat.columns[column] || !map.rows[row]) return;
    at = [column, row];
    label.text(cellInWords(heat, map, at));
    frame.attr("display", null).attr("x", column * cell.width).attr("y", row * cell.height);
  };
  const leave = () => { label.text(before); frame.attr("display", "none"); };
  cells.on("pointermove", (event) => {
    const [x, y] = d3.pointer(event, cells.node());
    go(Math.floor(x / cell.width), Math.floor(y / cell.height));
  });
  cells.on("pointerleave", leave);
  svg.attr("tabindex", 0).on("focus", () => go(...at)).on("blur", leave).on("keydown", (event) => {
    if (!ARROWS[event.key]) return;
    event.preventDefault();
    const [right, down] = ARROWS[event.key];
    go(at[0] + right, at[1] + down);
    svg.attr("aria-label", `${cellInWords(heat, map, at)}. ${heatInWords(heat, map)}`);
  });
}

function cellInWords(heat, map, [column, row]) {
  const value = map.rows[row][column];
  const text = Number.isFinite(value) ? written(value) : "not measured";
  return `${heat.sites[row]}, step ${heat.columns[column].at(-1)}: ${text}`;
}

function heatInWords(heat, map) {
  const last = map.rows.map((row, place) => {
    const value = [...row].filter(Number.isFinite).at(-1);
    return value === undefined ? null : `${heat.sites[place]} ${written(value)}`;
  });
  const known = last.filter(Boolean);
  const shown = known.length > 12 ? evenly(known.length, 12).map((place) => known[place]) : known;
  return `Heat map of ${heat.about.axis} of ${map.item.name}: ${heat.sites.length} sites at ${heat.columns.length} steps. Last: ${shown.join("; ") || "nothing"}.`;
}

/** The colour scale, with its ends, and what hatching means. */
function heatLegend(heat) {
  const svg = d3.create("svg").attr("width", 240).attr("height", 34).attr("role", "img")
    .attr("aria-label", `Colours from ${written(heat.domain[0])}, dark, to ${written(heat.domain[1])}, light.`);
  d3.range(48).forEach((place) => {
    svg.append("rect").attr("x", 10 + place * 4.5).attr("width", 5).attr("height", 12).attr("fill", colourAt(place / 47));
  });
  const scale = d3.scaleLinear(heat.domain, [10, 226]);
  svg.append("g").attr("fill", "currentColor").attr("font-size", 11).attr("text-anchor", "middle").selectAll("text")
    .data(scale.ticks(4)).join("text").attr("x", scale).attr("y", 27).text(written);
  const absent = heat.maps.some((map) => map.rows.some((row) => row.some((value) => !Number.isFinite(value))));
  const several = heat.columns.some(([from, to]) => from !== to);
  const note = [absent ? "Hatched: not measured." : "", several ? "A column holds several steps, and shows the last value of them." : ""];
  return el("p", { class: "legend" }, el("span", {}, heat.about.axis), svg.node(), el("span", { class: "note" }, note.join(" ")));
}
