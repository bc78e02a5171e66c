// The one step axis that all panels share: its range, its margins, its cursor.

export const MARGIN = { l: 84, r: 66, t: 6, b: 24, autoexpand: false };
const NARROW = { l: 58, r: 52, t: 6, b: 24, autoexpand: false };

const views = new Set();
let cursor = null;

/** A panel joins with {plot, range(), draw(index)}; returns a function that takes it out. */
export function join(view) {
  views.add(view);
  return () => views.delete(view);
}

export const margins = () => (innerWidth < 720 ? NARROW : MARGIN);

/** The step under a pointer event, or null where it is outside the plotting area. */
export function stepAt(plot, event) {
  const axis = plot._fullLayout?.xaxis;
  if (!axis) return null;
  const pixel = event.clientX - plot.getBoundingClientRect().left - axis._offset;
  return pixel < 0 || pixel > axis._length ? null : axis.p2d(pixel);
}

/** The row under a pointer event, for panels whose rows are 0, 1, 2 ... */
export function rowAt(plot, event) {
  const axis = plot._fullLayout?.yaxis;
  if (!axis) return null;
  const pixel = event.clientY - plot.getBoundingClientRect().top - axis._offset;
  return pixel < 0 || pixel > axis._length ? null : Math.round(axis.p2d(pixel));
}

/** Pixels from the plot's left edge to a step, or null where it is out of sight. */
export function pixelOf(plot, step) {
  const axis = plot._fullLayout?.xaxis;
  if (!axis || step === null) return null;
  const pixel = axis.d2p(step);
  return pixel < -0.5 || pixel > axis._length + 0.5 ? null : axis._offset + pixel;
}

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
