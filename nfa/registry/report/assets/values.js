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

/** The value at a step, or at the nearest earlier one that is here; of a thinned series it is said of how many. */
function atStep(curve, step) {
  const [steps, values] = [stepsOf(curve), listOf(curve, "values")];
  const place = finitePlaces(values).filter((one) => steps[one] <= step).at(-1);
  if (place === undefined) return null;
  const found = { value: values[place], step: steps[place] };
  if (found.step === step) return found;
  return { ...found, note: curve.points ? `the nearest earlier of ${values.length} of ${curve.points} values that are here` : "the nearest earlier one" };
}

/** The last value of a key that has no series here, unless a step is wanted that is not its own. */
function ofLast(run, key, { at, of, step }) {
  const found = latestOf(run, key);
  const needed = at === "step" ? step : at === "best" && of && of !== key ? bestStep(run, of) : found?.step;
  if (!found || found.step !== needed) return null;
  return at === "last" ? found : { ...found, note: "the last one" };
}

/** The value of a run that is asked for, its step and the run that has logged it; null where there is none. */
function pick(run, key, wanted) {
  const curve = DATA.curves[key]?.[run];
  const found = curve ? ofCurve(curve, run, key, wanted) : ofLast(run, key, wanted);
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

/** The same of a run or of a group: the mean of its runs' values, if all of them have one; a mean over some is biased. */
function pickOf(item, key, wanted) {
  if (item.folded && DATA.groups[item.index].apart?.includes(key)) return null;
  const found = item.runs.map((run) => pick(run, key, wanted));
  if (found.includes(null)) return null;
  if (found.length === 1) return found[0];
  const values = found.map((one) => one.value);
  const [step, lastStep] = d3.extent(found, (one) => one.step);
  const [lowest, highest] = d3.extent(values);
  const note = [...new Set(found.map((one) => one.note).filter(Boolean))].join("; ");
  return { value: d3.mean(values), ...intervalOf(values, key), lowest, highest, step, lastStep, note, n: found.length, holder: holdersOf(item, key) };
}

/** The 95 % t-interval of a mean from three values on, cut at what is possible. */
function intervalOf(values, key) {
  if (values.length < 3) return {};
  const half = (tQuantile(values.length - 1) * d3.deviation(values)) / Math.sqrt(values.length);
  const ends = [d3.mean(values) - half, d3.mean(values) + half];
  const [low, high] = ends.map((end) => within(end, key));
  return { half, low, high, cut: low !== ends[0] || high !== ends[1] };
}

/** Whether a key has last values only. */
function lastOnly(key) {
  return !(key in DATA.curves);
}

/** A picked value in words: a mean with half of its interval, or its ends if it is cut; of two runs with both values. */
function valueInWords({ value, half, low, high, cut, lowest, highest, n }) {
  if (n === undefined) return written(value);
  if (cut) return `${written(value)} [${written(low)}, ${written(high)}]`;
  if (half === undefined) return `${written(value)} (${written(lowest)} to ${written(highest)})`;
  return `${written(value)} ± ${written(Number(half.toPrecision(2)))}`;
}

/** The step of a picked value in words, with what else a reader has to know of it. */
function stepInWords(found) {
  const steps = found.lastStep !== undefined && found.lastStep !== found.step ? `steps ${found.step}–${found.lastStep}` : `step ${found.step}`;
  return found.note ? `${steps}, ${found.note}` : steps;
}
