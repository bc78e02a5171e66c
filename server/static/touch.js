// Two fingers on a plot: the steps under them stay under them, so that they stretch and move all charts.

/** The range in which the steps that lay under two fingers lie under them now; both in pixels from the left edge of the plotting area. */
export function stretched(range, width, before, now) {
  const step = (pixel) => range[0] + (pixel / width) * (range[1] - range[0]);
  const [first, last] = before.map(step);
  const [a, b] = now;
  const scale = (last - first) / (Math.abs(b - a) < 8 ? 8 * Math.sign(b - a || 1) : b - a);
  const from = first - a * scale;
  return scale > 0 ? [from, from + width * scale] : range;
}

/** Let two fingers zoom a plot. own: {range(), area(), show(range), zoom(range), began()}. */
export function pinch(area, own) {
  const fingers = new Map();
  let start = null;
  const positions = () => [...fingers.values()];
  const edges = () => ({ left: area.getBoundingClientRect().left + own.area().left, width: own.area().width });
  const moved = () => {
    const { left, width } = start.edges;
    return stretched(start.range, width, start.at.map((x) => x - left), positions().map((x) => x - left));
  };
  area.addEventListener("pointerdown", ({ pointerType, pointerId, clientX }) => {
    if (pointerType !== "touch") return;
    fingers.set(pointerId, clientX);
    if (fingers.size !== 2 || !own.range()) return;
    own.began();
    start = { range: own.range(), at: positions(), edges: edges() };
  });
  area.addEventListener("pointermove", ({ pointerId, clientX }) => {
    if (!fingers.has(pointerId)) return;
    fingers.set(pointerId, clientX);
    if (start && fingers.size === 2) own.show(moved());
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    area.addEventListener(kind, ({ pointerId }) => {
      const range = start && fingers.size === 2 ? moved() : null;
      fingers.delete(pointerId);
      start = null;
      if (range) own.zoom(range);
    });
  }
}
