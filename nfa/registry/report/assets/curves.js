"use strict";
// Curves of a key: a line for each run or group, with what is known of its certainty.

// Width and height of a panel; on the screen it is as wide as its place.
const SMALL = { screen: [290, 190], paper: [225, 150] };
const LARGE = { screen: [440, 240], paper: [225, 150] };

function sizeOf(place, { screen, paper }) {
  if (STATE.paper) return { width: paper[0], height: paper[1] };
  return { width: place.clientWidth || screen[0], height: screen[1] };
}

/** The points of a curve, with the ends of its band and what it is compared with; kept within what is possible. */
function pointsOf(item, key) {
  const curve = curveOf(item, key);
  if (!curve) return [];
  const list = (part) => listOf(curve, part);
  const values = list("values");
  const [se, low, high, middle] = [list("se"), list("low"), list("high"), list("unbiased") ?? values];
  const [chance, spread, shared] = [list("chance"), list("chance_sd"), list("shared")];
  return stepsOf(curve).map((step, place) => ({
    step,
    value: values[place],
    low: low ? within(low[place], key) : se ? within(middle[place] - 2 * se[place], key) : NaN,
    high: high ? within(high[place], key) : se ? within(middle[place] + 2 * se[place], key) : NaN,
    chance: chance ? chance[place] : NaN,
    chanceLow: chance && spread ? within(chance[place] - 2 * spread[place], key) : NaN,
    chanceHigh: chance && spread ? within(chance[place] + 2 * spread[place], key) : NaN,
    shared: shared ? shared[place] : NaN,
  }));
}

/** The value of a curve at each of these steps; between two of its own, on the line that joins them. */
function valuesAt(curve, grid) {
  const [steps, values] = [stepsOf(curve), listOf(curve, "values")];
  if (steps === grid) return values;
  let place = 0;
  return grid.map((step) => {
    while (place < steps.length - 1 && steps[place + 1] <= step) place += 1;
    if (steps[place] === step) return values[place];
    if (steps[place] > step || place === steps.length - 1) return NaN;
    const share = (step - steps[place]) / (steps[place + 1] - steps[place]);
    return values[place] + share * (values[place + 1] - values[place]);
  });
}

/** Of many runs, at each step: the lowest, 10 %, the middle, 90 %, the highest, and of how many. */
function quantilesOf(all, key) {
  const curves = all.map((item) => curveOf(item, key)).filter(Boolean);
  if (!curves.length) return [];
  const sets = [...new Set(curves.map((curve) => curve.steps))].map((set) => DATA.steps[set]);
  const union = sets.length === 1 ? sets[0] : d3.sort(new Set(sets.flat()));
  const grid = union.length > 300 ? evenly(union.length, 300).map((place) => union[place]) : union;
  const columns = curves.map((curve) => valuesAt(curve, grid));
  return grid.map((step, place) => {
    const sorted = Float64Array.from(columns.map((column) => column[place]).filter(Number.isFinite)).sort();
    const at = (share) => d3.quantileSorted(sorted, share);
    return { step, n: sorted.length, lowest: at(0), low: at(0.1), middle: at(0.5), high: at(0.9), highest: at(1) };
  }).filter((row) => row.n);
}

/** The runs of a mean that has no interval, because they are two: their values stand beside it. */
function membersOf(item, key) {
  if (item.runs.length === 1 || curveOf(item, key)?.low !== undefined) return [];
  return item.runs.map((run) => pointsOf(RUN_ITEMS[run], key));
}

/** What a panel draws, and the numbers that its scales have to hold. */
function panelOf(key, shown, all) {
  const series = shown.map((item) => ({ item, points: pointsOf(item, key), members: membersOf(item, key) }));
  const quantiles = all.length > MOST ? quantilesOf(all, key) : [];
  return { key, about: aboutKey(key), series, quantiles };
}

const PARTS_OF_BANDS = ["low", "high", "chanceLow", "chanceHigh"];

function numbersOf(panel, bands = PARTS_OF_BANDS) {
  const points = panel.series.flatMap((one) => [...one.points, ...one.members.flat().map(({ value }) => ({ value }))]);
  const parts = ["value", "chance", "shared", ...bands];
  const drawn = points.flatMap((point) => parts.map((part) => point[part]));
  return [...drawn, ...panel.quantiles.flatMap((row) => [row.lowest, row.highest])].filter(Number.isFinite);
}

/** A tenth of the lowest positive value: on a logarithmic axis a band that ends just above zero would take all room. */
function footOf(panels) {
  const [lowest] = d3.extent(panels.flatMap((panel) => numbersOf(panel, [])).filter((value) => value > 0));
  return lowest && lowest / 10;
}

/** Whether a value is below zero, which no logarithmic axis can show. */
function hasNegative({ series, quantiles }) {
  return series.some(({ points }) => points.some(({ value }) => value < 0)) || quantiles.some(({ lowest }) => lowest < 0);
}

/** The ends of the axes, the same for all panels of one quantity: not beyond what is possible, and never within the data. */
function scalesOf(panels) {
  const { limits, logarithmic } = panels[0].about;
  const numbers = panels.flatMap((panel) => numbersOf(panel));
  const positive = numbers.filter((value) => value > 0);
  const log = logarithmic && positive.length > 0 && !panels.some(hasNegative);
  const [lowest, to] = d3.extent(log ? positive : numbers);
  const from = log ? Math.max(lowest, footOf(panels) ?? lowest) : lowest;
  const steps = d3.extent(panels.flatMap((panel) => [...panel.series.flatMap((one) => one.points), ...panel.quantiles]), (row) => row.step);
  return { y: log ? widened(from, to, true) : rounded(from, to, limits), x: steps[0] === steps[1] ? [steps[0] - 1, steps[0] + 1] : steps, log };
}

function widened(from, to, log) {
  if (from < to) return [from, to];
  return log ? [from / 2, to * 2] : [from - (Math.abs(from) / 10 || 1), to + (Math.abs(to) / 10 || 1)];
}

/** Ends that are round; an end that is near to a limit is the limit, unless values lie beyond it. */
function rounded(from, to, [least, greatest]) {
  if (from === undefined) return [0, 1];
  const [low, high] = d3.nice(...widened(from, to, false), 5);
  const near = (high - low) / 2;
  const bottom = least !== null && low < least + near ? Math.min(least, from) : low;
  const top = greatest !== null && high > greatest - near / 2 ? Math.max(greatest, to) : high;
  return [bottom, top];
}

/** Whether a point stands alone: there is no line to it. */
function alone(points, place) {
  const missing = (other) => !points[other] || !Number.isFinite(points[other].value);
  return missing(place - 1) && missing(place + 1);
}

/** Points that get a marker: all of few; of many about eight, at other places for each line. */
function marked(points, order) {
  const finite = points.filter((point) => Number.isFinite(point.value));
  if (finite.length <= 13) return finite;
  const every = Math.ceil(finite.length / 8);
  return finite.filter((_, place) => place % every === (order * 2) % every);
}

const BOUND = { x: "step", clip: "frame" };

function marksOf({ item, points, members }, order, about) {
  const { colour, dash, symbol } = lookOf(item);
  const curve = about.held ? "step-after" : "linear";
  const single = points.filter((point, place) => Number.isFinite(point.low) && alone(points, place));
  return [
    Plot.areaY(points, { ...BOUND, y1: "low", y2: "high", fill: colour, fillOpacity: 0.16, curve }),
    ...members.map((rows) => Plot.line(rows, { ...BOUND, y: "value", stroke: colour, strokeWidth: 0.8, strokeOpacity: 0.7, curve })),
    Plot.ruleX(single, { ...BOUND, y1: "low", y2: "high", stroke: colour, strokeWidth: 1.5 }),
    Plot.line(points, { ...BOUND, y: "shared", stroke: colour, strokeDasharray: "1 4", strokeWidth: 1.6, strokeLinecap: "round" }),
    Plot.line(points, { ...BOUND, y: "value", stroke: colour, strokeDasharray: dash, strokeWidth: 1.7, curve }),
    Plot.dot(marked(points, order), { ...BOUND, y: "value", fill: colour, symbol, r: 2.8 }),
  ];
}

function chanceMarks({ points }, _, all) {
  return [
    Plot.areaY(points, { ...BOUND, y1: "chanceLow", y2: "chanceHigh", fill: "var(--grey)", fillOpacity: Math.max(0.3 / all.length, 0.04) }),
    Plot.line(points, { ...BOUND, y: "chance", stroke: "var(--grey)", strokeWidth: 1 }),
  ];
}

function quantileMarks(rows) {
  return [
    Plot.areaY(rows, { ...BOUND, y1: "lowest", y2: "highest", fill: "var(--grey)", fillOpacity: 0.2 }),
    Plot.areaY(rows, { ...BOUND, y1: "low", y2: "high", fill: "var(--grey)", fillOpacity: 0.32 }),
    Plot.line(rows, { ...BOUND, y: "middle", stroke: "var(--quiet)", strokeWidth: 1.5 }),
  ];
}

/** A text for one who points at a value. */
function pointer(panel, log) {
  const points = panel.series.flatMap(({ item, points: own }) =>
    own.filter(({ value }) => Number.isFinite(value) && (value > 0 || !log)).map((point) => ({ ...point, title: tipOf(item, point) })));
  return Plot.tip(points, Plot.pointer({ x: "step", y: "value", title: "title", fill: "var(--paper)", maxRadius: 25 }));
}

function tipOf(item, point) {
  const band = Number.isFinite(point.low) ? `\n${written(point.low)} to ${written(point.high)}` : "";
  const chance = Number.isFinite(point.chance) ? `\nchance ${written(point.chance)}` : "";
  return `${item.name}\nstep ${point.step}: ${written(point.value)}${band}${chance}`;
}

/** Steps are whole numbers: no tick between two of them. */
function wholeTicks([from, to], width) {
  return d3.ticks(from, to, width / 55).filter(Number.isInteger);
}

/** Ticks of a logarithmic axis over less than a decade, which would have hardly any of its own. */
function ticksOf({ y: [from, to], log }) {
  return log && to < 10 * from ? d3.ticks(from, to, 4) : 5;
}

/** Draws a panel; a logarithmic axis leaves out values that are not above zero, and bands that reach there end at its foot. */
function curvesSvg(panel, scales, size) {
  const inside = (rows) => (scales.log ? rows.map((row) => positiveOf(row, scales.y[0])) : rows);
  const series = panel.series.map(({ item, points, members }) => ({ item, points: inside(points), members: members.map(inside) }));
  const svg = Plot.plot({
    width: size.width, height: size.height, marginLeft: 50, marginRight: 12, marginTop: 8, marginBottom: 34, inset: 4,
    x: { domain: scales.x, label: unitOf(panel), ticks: wholeTicks(scales.x, size.width), labelArrow: false, tickFormat: "~s" },
    y: { domain: scales.y, type: scales.log ? "log" : "linear", label: null, grid: true, ticks: ticksOf(scales), tickFormat: scales.log ? "~g" : undefined },
    marks: [
      ...series.flatMap(chanceMarks), ...quantileMarks(inside(panel.quantiles)),
      ...series.flatMap((one, order) => marksOf(one, order, panel.about)), pointer(panel, scales.log),
    ],
  });
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", describe(panel));
  return svg;
}

const LOWER_ENDS = { low: "high", chanceLow: "chanceHigh", lowest: "highest" }; // of bands, with their upper ends

function positiveOf(row, foot) {
  const positive = ([name, value]) => {
    if (name === "step" || !(value <= 0)) return [name, value];
    return [name, row[LOWER_ENDS[name]] > 0 ? foot : NaN];
  };
  return Object.fromEntries(Object.entries(row).map(positive));
}

/** What the steps are counted in. */
function unitOf(panel) {
  const units = new Set(panel.series.flatMap(({ item }) => item.runs.map((run) => DATA.runs[run].unit)));
  return [...units].join(" or ") || "step";
}

/** The panel in words: what, over which steps, and where each line ends. */
function describe(panel) {
  const ends = panel.series.map(({ item, points }) => {
    const last = points.filter((point) => Number.isFinite(point.value)).at(-1);
    return last ? `${item.name} ${written(last.value)} at ${last.step}` : `${item.name}: no values`;
  });
  const many = panel.quantiles.length ? `; the band is over ${d3.max(panel.quantiles, (row) => row.n)} runs or groups` : "";
  return `Curves of ${panel.about.title}, ${panel.about.axis}. Last: ${ends.join("; ")}${many}.`;
}
