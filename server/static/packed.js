// Packed float32 series: decoding, appending, and distinguishing a measured NaN from a missing value.

export const MISSING_BITS = 0x7fc05ab5;

/** Decode a packed series: {metric, steps, columns: [{layer, head, values, low, high}]}; low and high are null when exact. */
export function decode(buffer) {
  const view = new DataView(buffer);
  const length = view.getUint32(0, true);
  if (view.getUint32(4, true) !== 1) throw new Error("This page is older than the server: reload it.");
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const count = header.steps;
  let offset = 8 + length;
  const steps = new Float64Array(buffer, offset, count);
  offset += 8 * count;
  const columns = header.columns.map((spot) => ({ ...spot, values: null, low: null, high: null }));
  for (const part of header.parts) {
    for (const column of columns) {
      column[part] = new Float32Array(buffer, offset, count);
      offset += 4 * count;
    }
  }
  return { metric: header.metric, cursor: header.cursor, steps, columns };
}

export function decodeBase64(text) {
  return decode(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

/** True if values[index] was never measured; its bits mark that, the number itself reads as NaN. */
export function isMissing(values, index) {
  if (values[index] === values[index]) return false;
  return new Uint32Array(values.buffer, values.byteOffset + 4 * index, 1)[0] === MISSING_BITS;
}

function joined(first, keep, second) {
  const result = new second.constructor(keep + second.length);
  result.set(first.subarray(0, keep));
  result.set(second, keep);
  return result;
}

/** Append newer samples. Steps that a resumed run went back over replace the old ones. */
export function append(series, more) {
  if (!more.steps.length) return series;
  const keep = lowerBound(series.steps, more.steps[0]);
  const columns = series.columns.map((column, index) => {
    const fresh = more.columns[index];
    const bound = (part) => (column[part] ? joined(column[part], keep, fresh[part] ?? fresh.values) : null);
    return { ...column, values: joined(column.values, keep, fresh.values), low: bound("low"), high: bound("high") };
  });
  return { ...series, steps: joined(series.steps, keep, more.steps), columns };
}

/** Index of the first step that is not below `step`. */
export function lowerBound(steps, step) {
  let low = 0;
  let high = steps.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] < step) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Index of the step nearest to `step`, or -1 where there is none. */
export function nearest(steps, step) {
  if (!steps.length) return -1;
  const after = lowerBound(steps, step);
  if (after === 0) return 0;
  if (after === steps.length) return steps.length - 1;
  return step - steps[after - 1] <= steps[after] - step ? after - 1 : after;
}

/** Smallest and largest finite value, buckets' bounds included, between two steps. */
export function extent(columns, steps, from = -Infinity, to = Infinity) {
  let low = Infinity;
  let high = -Infinity;
  const start = lowerBound(steps, from);
  for (const column of columns) {
    for (const values of [column.low ?? column.values, column.high ?? column.values]) {
      for (let index = start; index < steps.length && steps[index] <= to; index += 1) {
        const value = values[index];
        if (!Number.isFinite(value)) continue;
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
  }
  return low <= high ? [low, high] : null;
}
