// The heatmap: layers (or the heads of one layer) by step, the first at the bottom.
import { h } from "./dom.js";
import { margins } from "./axis.js";
import { Panel } from "./panel.js";
import { scaleFor, shadesOf, token } from "./colours.js";
import { isMissing, lowerBound, nearest } from "./packed.js";
import { labels, reading, shortened, spot, unit } from "./text.js";

/** What a number that is not finite is called, in the order in which one hides another in a cell of several steps. */
export const ODD = [
  { kind: "nan", text: "NaN", colour: "odd", is: (value) => Number.isNaN(value) },
  { kind: "above", text: "+Inf", colour: "above", is: (value) => value === Infinity },
  { kind: "below", text: "-Inf", colour: "below", is: (value) => value === -Infinity },
];

/** Of each sample in sight the first pixel and the one after its last: a sample reaches half way to its neighbours. */
function pixelsOf(steps, [from, to], wide) {
  const start = Math.max(lowerBound(steps, from) - 1, 0);
  const stop = Math.min(lowerBound(steps, to) + 1, steps.length);
  const half = (index) => (index > 0 && index < steps.length ? (steps[index - 1] + steps[index]) / 2 : null);
  const edge = steps.length > 1 ? [steps[1] - steps[0], steps[steps.length - 1] - steps[steps.length - 2]] : [1, 1];
  const border = (index) => half(index) ?? (index ? steps[steps.length - 1] + edge[1] / 2 : steps[0] - edge[0] / 2);
  const pixel = (step) => Math.min(Math.max(Math.round(((step - from) / (to - from)) * wide), 0), wide);
  const firsts = new Int32Array(Math.max(stop - start, 0));
  const ends = new Int32Array(firsts.length);
  for (let index = start; index < stop; index += 1) {
    firsts[index - start] = Math.min(pixel(border(index)), wide - 1);
    ends[index - start] = Math.max(pixel(border(index + 1)), firsts[index - start] + 1);
  }
  return { start, firsts, ends };
}

/** Paint a picture of one pixel a row: where several samples share a pixel the one furthest from neutral is seen, and a number that is not finite before all. */
function picture(series, range, wide, scale) {
  const rows = series.columns.length;
  const image = new ImageData(wide, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const shades = shadesOf(scale.colours);
  const odd = ODD.map(({ colour }) => shadesOf([[0, token(colour)], [1, token(colour)]])[0]);
  const [low, high] = scale.ends;
  const { start, firsts, ends } = pixelsOf(series.steps, range, wide);
  const reached = new Float64Array(wide);
  series.columns.forEach(({ values }, row) => {
    reached.fill(-1);
    const line = (rows - 1 - row) * wide;
    for (let cell = 0; cell < firsts.length; cell += 1) {
      const value = values[start + cell];
      let [colour, weight] = [0, -1];
      if (Number.isFinite(value)) {
        const position = scale.position(value);
        const part = Math.min(Math.max((position - low) / (high - low), 0), 1);
        colour = shades[Math.round(part * (shades.length - 1))];
        weight = Math.max(scale.far(Math.min(Math.max(position, low), high)) - scale.near, 0);
      } else if (!isMissing(values, start + cell)) {
        const kind = ODD.findIndex(({ is }) => is(value));
        colour = odd[kind];
        weight = Infinity;
      } else continue;
      for (let pixel = firsts[cell]; pixel < ends[cell]; pixel += 1) {
        if (weight < reached[pixel]) continue;
        reached[pixel] = weight;
        pixels[line + pixel] = colour;
      }
    }
  });
  return image;
}

/** The number of values of each odd kind, and of those that were never measured. */
function count(series) {
  const seen = { nan: 0, above: 0, below: 0, missing: 0 };
  for (const { values } of series.columns) {
    for (let index = 0; index < values.length; index += 1) {
      const value = values[index];
      if (Number.isFinite(value)) continue;
      seen[isMissing(values, index) ? "missing" : ODD.find(({ is }) => is(value)).kind] += 1;
    }
  }
  return seen;
}

export class Heatmap extends Panel {
  constructor(act, tools, name = "") {
    super(name ? `heatmap of ${name}` : "heatmap", act, { tools, inline: true });
    this.hatch = h("div.hatch");
    this.area.before(this.hatch);
    this.legend = h("div.legend");
    this.below.append(this.legend);
  }

  /** shown: {info, series, layer, range, windows, chosen, scale}; chosen is the selected finding's {finding, from, to}, outlined; scale is that of several heatmaps. */
  show({ info, series, layer, range, windows, chosen, scale = null }) {
    this.info = info;
    this.series = series;
    const rows = series.columns.length;
    scale ??= scaleFor(info, [series]);
    const names = layer ? series.columns.map(({ head }) => `head ${head}`) : labels(series.columns.map((column) => column.layer));
    const every = Math.ceil(rows / 16);
    const room = innerWidth < 720 ? 8 : 12;
    const ticks = names.map((name, index) => [index, shortened(name, room)]).filter(([index]) => index % every === 0);
    this.height = Math.min(Math.max(rows * 26, 84), 280) + 30;
    const { t, r, b, l } = margins();
    this.hatch.style.inset = `${t}px ${r}px ${b}px ${l}px`;
    const seen = count(series);
    this.explain(scale, seen);
    const first = lowerBound(series.steps, range[0]);
    this.element.classList.toggle("empty", !(first < series.steps.length && series.steps[first] <= range[1]));
    this.element.dataset.cells = `${rows} x ${series.steps.length}`;
    this.draw({
      range,
      y: { ends: [-0.5, rows - 0.5], ticks, grid: false },
      paint: (context, plot) => this.paint(context, plot, scale),
      over: (context, plot) => {
        drawBar(context, plot, scale);
        strips(context, plot, windows);
        outline(context, plot, chosen, series, layer);
      },
    });
  }

  paint(context, plot, scale) {
    const { left, top, width, height } = plot.area;
    const wide = Math.max(Math.round(width * Math.min(devicePixelRatio || 1, 2)), 1);
    this.buffer ??= document.createElement("canvas");
    this.buffer.width = wide;
    this.buffer.height = this.series.columns.length;
    this.buffer.getContext("2d").putImageData(picture(this.series, plot.range, wide, scale), 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.buffer, left, top, width, height);
  }

  explain(scale, seen) {
    const what = `${scale.kind}${unit(this.info.unit) ? `, in ${this.info.unit}` : ""}`;
    const key = (swatch, text) => h("span.key", {}, h(`i.swatch.${swatch}`), text);
    const keys = ODD.filter(({ kind }) => seen[kind]).map(({ kind, text, colour }) => key(colour, `${text} (${seen[kind]})`));
    const missing = seen.missing ? key("missing", `not measured (${seen.missing})`) : null;
    this.legend.replaceChildren(...[h("span", {}, what), ...keys, missing].filter(Boolean));
  }

  read(cursor, row) {
    if (!this.series || !cursor || row === null || row < 0 || row >= this.series.columns.length) {
      this.readout.textContent = "";
      return;
    }
    const column = this.series.columns[row];
    const index = nearest(this.series.steps, cursor.step);
    if (index < 0) return;
    const text = reading(column.values[index], isMissing(column.values, index));
    this.readout.replaceChildren(h("span", {}, `step ${this.series.steps[index]} · ${spot(column)} · `, h("b", {}, text)));
  }
}

/** The colours beside the plot, with their values. */
function drawBar(context, plot, scale) {
  const { left, top, width, height } = plot.area;
  const x = left + width + 8;
  const gradient = context.createLinearGradient(0, top + height, 0, top);
  for (const [at, colour] of scale.colours) gradient.addColorStop(at, colour);
  context.fillStyle = gradient;
  context.fillRect(x, top, 9, height);
  context.fillStyle = token("muted");
  context.font = `10px ${token("font")}`;
  context.textAlign = "left";
  context.textBaseline = "middle";
  const [low, high] = scale.ends;
  scale.ticks.forEach((tick, index) => {
    const y = top + height * (1 - (tick - low) / (high - low));
    context.fillText(scale.labels[index], x + 13, Math.min(Math.max(y, top + 5), top + height - 4));
  });
}

/** Thin strips over the plot where findings lie. */
function strips(context, plot, windows) {
  const { left, top, width } = plot.area;
  for (const { from, to, severity } of windows) {
    const first = Math.max(plot.x(from), left);
    const last = Math.min(Math.max(plot.x(to), first + 2), left + width);
    if (last < first) continue;
    context.fillStyle = token(severity);
    context.fillRect(first, top - 5, last - first, 3);
  }
}

/** The chosen finding's own row and steps. */
function outline(context, plot, chosen, series, layer) {
  if (!chosen) return;
  const { finding, from, to } = chosen;
  const row = series.columns.findIndex((column) =>
    layer ? layer === finding.layer && column.head === finding.head : column.layer === finding.layer,
  );
  const { left, width } = plot.area;
  const first = Math.max(plot.x(from), left);
  const last = Math.min(plot.x(to), left + width);
  if (row < 0 || last < first) return;
  for (const [thick, colour] of [[3.5, "surface"], [1.5, "ink"]]) {
    context.lineWidth = thick;
    context.strokeStyle = token(colour);
    context.strokeRect(first, plot.y(row + 0.47), last - first, plot.y(row - 0.47) - plot.y(row + 0.47));
  }
}

/** The heatmap as a table: one row a layer with its first, lowest, highest and latest value in sight. */
export function summaryTable(series, range, title) {
  const { steps } = series;
  const start = range ? lowerBound(steps, range[0]) : 0;
  const stop = range ? lowerBound(steps, range[1]) : steps.length;
  const heads = ["layer", "first", "lowest", "at step", "highest", "at step", "latest", "NaN or Inf", "not measured"];
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
