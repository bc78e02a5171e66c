// One run's numbers over another's.
import { isMissing, lowerBound, MISSING_BITS } from "./packed.js";

/** One series over another, cell by cell, at the steps of the first; a step the other lacks takes its last one before it. */
export function over(series, other) {
  const columns = series.columns.map((column, index) => {
    const match = other.columns.find(({ layer, head }) => layer === column.layer && head === column.head) ?? other.columns[index];
    const values = new Float32Array(series.steps.length);
    new Uint32Array(values.buffer).fill(MISSING_BITS);
    if (!match) return { ...column, values, low: null, high: null };
    series.steps.forEach((step, at) => {
      const there = lowerBound(other.steps, step + 0.5) - 1;
      if (there < 0 || step > other.steps.at(-1) || isMissing(column.values, at) || isMissing(match.values, there)) return;
      values[at] = column.values[at] / match.values[there];
    });
    return { ...column, values, low: null, high: null };
  });
  return { ...series, columns };
}
