// The one step axis that all panels share: its range, its margins, its cursor.

export const MARGIN = { l: 84, r: 66, t: 6, b: 24 };
const NARROW = { l: 58, r: 52, t: 6, b: 24 };

const views = new Set();
let cursor = null;

/** A panel joins with {showCursor(cursor, row), showRange(range)}; returns a function that takes it out. */
export function join(view) {
  views.add(view);
  return () => views.delete(view);
}

export const margins = () => (innerWidth < 720 ? NARROW : MARGIN);

export const currentCursor = () => cursor;

/** Put the cursor of every panel on a step; row is the row of the panel under the pointer, if any. */
export function showCursor(step, { pinned = false, source = null, row = null } = {}) {
  cursor = step === null ? null : { step, pinned };
  for (const view of views) view.showCursor(cursor, view === source ? row : null);
}

/** Give every panel the same range; a range of null shows everything. */
export function showRange(range) {
  for (const view of views) view.showRange(range);
}

/** The ends of the axis when everything is shown. */
export function fullRange(steps) {
  if (!steps.length) return [0, 1];
  const [first, last] = [steps[0], steps[steps.length - 1]];
  const edge = steps.length > 1 ? Math.max((last - first) * 0.004, 0.5) : 0.5;
  return [first - edge, last + edge];
}
