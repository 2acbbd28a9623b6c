"use strict";
// What the whole page shows: runs or means over seeds, which of them, and in which colours.

const MOST = 12; // lines, panels, heat maps and pictures at once
const FIRST = 5; // of more runs than that, those which are ticked at first
const COLOURS = 8;
const DASHES = ["", "8 3", "4 2", "9 3 2 3", "14 3"];
const SYMBOLS = ["circle", "square", "triangle", "diamond", "star", "cross", "wye"];

function ticksAtFirst(items) {
  return new Map(items.slice(0, items.length > MOST ? FIRST : MOST).map((item, slot) => [item.index, slot]));
}

// The ticked ones have a slot each, and a slot has a colour, a dash and a marker, so that they keep all three.
const STATE = { folded: HAS_SEEDS, paper: false, slots: { true: ticksAtFirst(GROUP_ITEMS), false: ticksAtFirst(RUN_ITEMS) }, listeners: [] };

function whenChanged(listener) {
  STATE.listeners.push(listener);
}

function changed() {
  STATE.listeners.forEach((listener) => listener());
}

/** All runs, or all groups. */
function items() {
  return STATE.folded ? GROUP_ITEMS : RUN_ITEMS;
}

function slots() {
  return STATE.slots[STATE.folded];
}

function isTicked(item) {
  return slots().has(item.index);
}

function shownItems() {
  return items().filter(isTicked);
}

/** Ticks or unticks; returns false where that would be too many for a chart. */
function tick(item, on) {
  const taken = slots();
  if (on && taken.size >= MOST) return false;
  if (on) taken.set(item.index, d3.range(MOST).find((slot) => ![...taken.values()].includes(slot)));
  else taken.delete(item.index);
  changed();
  return true;
}

function fold(folded) {
  STATE.folded = folded;
  changed();
}

const GROUP_OF = new Map(DATA.groups.flatMap((group, index) => group.runs.map((run, seed) => [run, { index, seed }])));

/** Colour, dash and marker of a run or group: the same everywhere. Seeds of a group share colour and marker. */
function lookOf(item) {
  if (HAS_SEEDS && DATA.groups.length <= COLOURS) {
    const { index, seed } = item.folded ? { index: item.index, seed: 0 } : GROUP_OF.get(item.index) ?? { index: 0, seed: 0 };
    return { colour: `var(--c${index})`, dash: DASHES[seed % DASHES.length], symbol: SYMBOLS[index % SYMBOLS.length] };
  }
  const slot = slots().get(item.index) ?? 0;
  const round = Math.floor(slot / COLOURS);
  return { colour: `var(--c${slot % COLOURS})`, dash: DASHES[round % DASHES.length], symbol: SYMBOLS[slot % SYMBOLS.length] };
}

/** The line and the marker of a run or group, as a small picture beside its name. */
function swatch(item) {
  const { colour, dash, symbol } = lookOf(item);
  const svg = d3.create("svg").attr("width", 30).attr("height", 12).attr("aria-hidden", "true");
  svg.append("line").attr("x2", 30).attr("y1", 6).attr("y2", 6).attr("stroke-width", 2).attr("stroke-dasharray", dash).style("stroke", colour);
  const shape = d3.symbol(d3[`symbol${symbol[0].toUpperCase()}${symbol.slice(1)}`], 45)();
  svg.append("path").attr("d", shape).attr("transform", "translate(15,6)").style("fill", colour);
  return svg.node();
}
