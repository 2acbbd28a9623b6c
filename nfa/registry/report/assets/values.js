"use strict";
// One value of a series: the best, the last, at a step, the lowest, the highest; over seeds, their mean.

const WHERE = [["last", "last"], ["best", "best"], ["step", "at a step"], ["lowest", "lowest"], ["highest", "highest"]];

function finitePlaces(values) {
  return d3.range(values.length).filter((place) => Number.isFinite(values[place]));
}

/** The place of the lowest or the highest value; the first of equal ones. */
function extreme(values, highest) {
  const found = highest ? d3.greatestIndex(values, (value) => (Number.isFinite(value) ? value : -Infinity)) : d3.leastIndex(values, (value) => (Number.isFinite(value) ? value : Infinity));
  return Number.isFinite(values[found]) ? found : undefined;
}

/** The step at which a run is best by a key, if the key tells what is better. */
function bestStep(run, key) {
  const curve = DATA.curves[key]?.[run];
  const { better } = aboutKey(key);
  if (!curve || !better) return undefined;
  const place = extreme(listOf(curve, "values"), better === "high");
  return place === undefined ? undefined : stepsOf(curve)[place];
}

/** The value at a step, or the nearest earlier one. */
function atStep(curve, step) {
  const [steps, values] = [stepsOf(curve), listOf(curve, "values")];
  const place = finitePlaces(values).filter((one) => steps[one] <= step).at(-1);
  return place === undefined ? null : { value: values[place], step: steps[place] };
}

/** The value of a run that is asked for, its step and the run that has logged it; null where there is none. */
function pick(run, key, wanted) {
  const curve = DATA.curves[key]?.[run];
  const found = curve ? ofCurve(curve, run, key, wanted) : latestOf(run, key);
  return found && { ...found, holder: holderOf(run, key) };
}

function ofCurve(curve, run, key, { at, of, step }) {
  const [steps, values] = [stepsOf(curve), listOf(curve, "values")];
  if (at === "step") return atStep(curve, step);
  if (at === "best") {
    const best = bestStep(run, of || key);
    return best === undefined ? null : atStep(curve, best);
  }
  const place = at === "last" ? finitePlaces(values).at(-1) : extreme(values, at === "highest");
  return place === undefined ? null : { value: values[place], step: steps[place] };
}

/** The same of a run or of a group: the mean of its runs' values, with a 95 % t-interval from three runs on. */
function pickOf(item, key, wanted) {
  const found = item.runs.map((run) => pick(run, key, wanted)).filter(Boolean);
  if (!found.length) return null;
  if (item.runs.length === 1) return found[0];
  const values = found.map((one) => one.value);
  const half = found.length > 2 ? (tQuantile(found.length - 1) * d3.deviation(values)) / Math.sqrt(found.length) : undefined;
  const [first, last] = d3.extent(found, (one) => one.step);
  const [lowest, highest] = d3.extent(values);
  return { value: d3.mean(values), half, lowest, highest, step: first, lastStep: last, n: found.length, of: item.runs.length, holder: found.map((one) => one.holder).join(" ") };
}

/** Whether a key has last values only. */
function lastOnly(key) {
  return !(key in DATA.curves);
}

/** A picked value in words: a mean with half of its interval, of two runs with both values. */
function valueInWords({ value, half, lowest, highest, n }) {
  if (n === undefined || n === 1) return written(value);
  if (half === undefined) return `${written(value)} (${written(lowest)} to ${written(highest)})`;
  return `${written(value)} ± ${written(Number(half.toPrecision(2)))}`;
}

/** The step of a picked value in words, with what else a reader has to know of it. */
function stepInWords(found, key, wanted) {
  const steps = found.lastStep !== undefined && found.lastStep !== found.step ? `steps ${found.step}–${found.lastStep}` : `step ${found.step}`;
  const last = lastOnly(key) && wanted.at !== "last" ? ", the last one" : "";
  const seeds = found.n !== undefined && found.n < found.of ? `, ${found.n} of ${found.of} seeds` : "";
  return `${steps}${last}${seeds}`;
}
