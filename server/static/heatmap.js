// The heatmap: layers (or the heads of one layer) by step, the first at the bottom.
import { h } from "./dom.js";
import { margins } from "./axis.js";
import { Panel } from "./panel.js";
import { scaleFor, token } from "./colours.js";
import { isMissing, lowerBound, nearest } from "./packed.js";
import { labels, reading, shortened, spot, unit } from "./text.js";

/** Cells that are in sight, at least a pixel wide: first index of each, and their borders, half way between steps. */
function cellsInSight(steps, range, pixels) {
  const start = Math.max(lowerBound(steps, range[0]) - 1, 0);
  const stop = Math.min(lowerBound(steps, range[1]) + 1, steps.length);
  const stride = Math.max(1, Math.ceil((stop - start) / Math.max(pixels, 50)));
  const firsts = [];
  for (let index = start; index < stop; index += stride) firsts.push(index);
  const half = (index) => (index > 0 ? (steps[index - 1] + steps[index]) / 2 : steps[0] - (steps.length > 1 ? (steps[1] - steps[0]) / 2 : 0.5));
  const last = steps.length > 1 ? steps.length - 1 : 0;
  const end = stop < steps.length ? half(stop) : 2 * steps[last] - half(last);
  return { firsts, stop, borders: [...firsts.map(half), end] };
}

/** Positions on the colour axis, and 1 where a number was measured and is not finite; what was not measured is null in both.
 * A cell of several steps shows the position furthest from the neutral one; a NaN among them wins. */
function gridOf(column, { firsts, stop }, scale) {
  const positions = [];
  const odd = [];
  firsts.forEach((first, cell) => {
    let position = null;
    let mark = null;
    for (let index = first; index < (firsts[cell + 1] ?? stop); index += 1) {
      const value = column.values[index];
      if (!Number.isFinite(value)) mark = isMissing(column.values, index) ? mark : 1;
      else if (position === null || scale.far(scale.position(value)) > scale.far(position)) position = scale.position(value);
    }
    positions.push(mark ? null : position);
    odd.push(mark);
  });
  return { positions, odd };
}

/** The number of values that are not finite, and of those that were never measured. */
function count(series) {
  const seen = { odd: 0, missing: 0 };
  for (const { values } of series.columns) {
    for (let index = 0; index < values.length; index += 1) {
      if (Number.isFinite(values[index])) continue;
      seen[isMissing(values, index) ? "missing" : "odd"] += 1;
    }
  }
  return seen;
}

export class Heatmap extends Panel {
  constructor(act, tools) {
    super("heatmap", act, { tools, inline: true });
    this.hatch = h("div.hatch");
    this.plot.before(this.hatch);
    this.legend = h("div.legend");
    this.below.append(this.legend);
  }

  /** shown: {info, series, layer, range, windows, chosen}; chosen is the selected finding's {finding, from, to}, outlined. */
  show({ info, series, layer, range, windows, chosen }) {
    this.info = info;
    this.series = series;
    const rows = series.columns.length;
    const scale = scaleFor(info, series, null);
    const sight = cellsInSight(series.steps, range, this.plot.clientWidth - margins().l - margins().r);
    const grids = series.columns.map((column) => gridOf(column, sight, scale));
    const seen = count(series);
    const cells = { type: "heatmap", x: sight.borders, y0: 0, dy: 1, zsmooth: false, hoverinfo: "skip" };
    const bar = {
      thickness: 9,
      outlinewidth: 0,
      len: 1,
      lenmode: "fraction",
      y: 0.5,
      x: 1,
      xpad: 8,
      ypad: 0,
      tickvals: scale.ticks,
      ticktext: scale.labels,
      tickfont: { size: 10, color: token("muted") },
      ticks: "",
    };
    const [zmin, zmax] = scale.ends;
    const traces = [{ ...cells, z: grids.map(({ positions }) => positions), zmin, zmax, colorscale: scale.colours, colorbar: bar }];
    if (seen.odd) {
      const colour = token("odd");
      traces.push({ ...cells, z: grids.map(({ odd }) => odd), zmin: 0, zmax: 1, colorscale: [[0, colour], [1, colour]], showscale: false });
    }
    const names = layer ? series.columns.map(({ head }) => `head ${head}`) : labels(series.columns.map((column) => column.layer));
    const every = Math.ceil(rows / 16);
    const ticks = names.map((_, index) => index).filter((index) => index % every === 0);
    this.height = Math.min(Math.max(rows * 26, 84), 280) + 30;
    this.plot.style.height = `${this.height}px`;
    const { t, r, b, l } = margins();
    this.hatch.style.inset = `${t}px ${r}px ${b}px ${l}px`;
    this.explain(scale, seen);
    return this.draw(traces, {
      shapes: [...strips(windows), ...outline(chosen, series, layer)],
      yaxis: {
        range: [-0.5, rows - 0.5],
        tickvals: ticks,
        ticktext: ticks.map((index) => shortened(names[index], innerWidth < 720 ? 8 : 12)),
        showgrid: false,
      },
      xaxis: { showgrid: false },
    }, range);
  }

  explain(scale, seen) {
    const what = `${scale.kind}${unit(this.info.unit) ? `, in ${this.info.unit}` : ""}`;
    const odd = seen.odd ? h("span.key", {}, h("i.swatch.odd"), `NaN or Inf (${seen.odd})`) : null;
    const missing = seen.missing ? h("span.key", {}, h("i.swatch.missing"), `not measured (${seen.missing})`) : null;
    this.legend.replaceChildren(...[h("span", {}, what), odd, missing].filter(Boolean));
  }

  read(cursor, row) {
    if (!this.series || !cursor || row === null || row < 0 || row >= this.series.columns.length) {
      this.readout.textContent = "";
      return;
    }
    const column = this.series.columns[row];
    const index = nearest(this.series.steps, cursor.step);
    const text = reading(column.values[index], isMissing(column.values, index));
    this.readout.replaceChildren(h("span", {}, `step ${this.series.steps[index]} · ${spot(column)} · `, h("b", {}, text)));
  }
}

/** Thin strips over the plot where findings lie. */
function strips(windows) {
  return windows.map(({ from, to, severity }) => ({
    type: "rect",
    xref: "x",
    yref: "paper",
    x0: from,
    x1: to,
    y0: 1.01,
    y1: 1.01,
    ysizemode: "scaled",
    line: { width: 3, color: token(severity) },
  }));
}

/** The chosen finding's own row and steps. */
function outline(chosen, series, layer) {
  if (!chosen) return [];
  const { finding, from, to } = chosen;
  const row = series.columns.findIndex((column) =>
    layer ? layer === finding.layer && column.head === finding.head : column.layer === finding.layer,
  );
  if (row < 0) return [];
  const rectangle = { type: "rect", xref: "x", yref: "y", x0: from, x1: to };
  const position = { y0: row - 0.47, y1: row + 0.47 };
  return [
    { ...rectangle, ...position, line: { width: 3.5, color: token("surface") } },
    { ...rectangle, ...position, line: { width: 1.5, color: token("ink") } },
  ];
}

/** The heatmap as a table: one row a layer with its first, lowest, highest and latest value in sight. */
export function summaryTable(series, range, title) {
  const { steps } = series;
  const start = range ? lowerBound(steps, range[0]) : 0;
  const stop = range ? lowerBound(steps, range[1]) : steps.length;
  const heads = ["", "first", "lowest", "at step", "highest", "at step", "latest", "NaN or Inf", "not measured"];
  const rows = series.columns.map((column) => {
    const sum = { low: -1, high: -1, odd: 0, missing: 0 };
    for (let index = start; index < stop; index += 1) {
      const value = column.values[index];
      if (isMissing(column.values, index)) sum.missing += 1;
      else if (!Number.isFinite(value)) sum.odd += 1;
      else {
        if (sum.low < 0 || value < column.values[sum.low]) sum.low = index;
        if (sum.high < 0 || value > column.values[sum.high]) sum.high = index;
      }
    }
    const at = (index) => (index < start || index >= stop ? "–" : reading(column.values[index], isMissing(column.values, index)));
    const step = (index) => (index < 0 ? "–" : steps[index]);
    const cells = [at(start), at(sum.low), step(sum.low), at(sum.high), step(sum.high), at(stop - 1), sum.odd, sum.missing];
    return h("tr", {}, h("th", { scope: "row" }, spot(column)), cells.map((cell) => h("td", {}, String(cell))));
  });
  const head = h("tr", {}, heads.map((text) => h("th", { scope: "col" }, text)));
  return h("div.table-wrap", {}, h("table.numbers", {}, h("caption", {}, title), h("thead", {}, head), h("tbody", {}, rows)));
}
