// A plot on a canvas: two axes, and what a panel paints between them. Drawing one anew takes a few milliseconds.
import { margins } from "./axis.js";
import { token } from "./colours.js";
import { number } from "./text.js";

const TICK = 3;

/** Round numbers between low and high: 1, 2 or 5 times a power of ten apart, about `most` of them. */
export function roundTicks(low, high, most, least = 0) {
  const rough = Math.max((high - low) / Math.max(most, 1), Number.MIN_VALUE);
  const power = 10 ** Math.floor(Math.log10(rough));
  const stride = Math.max([1, 2, 5, 10].map((part) => part * power).find((step) => step >= rough * 0.999), least);
  const ticks = [];
  for (let tick = Math.ceil(low / stride) * stride; tick <= high && ticks.length < 100; tick += stride) ticks.push(Math.abs(tick) < stride / 1e6 ? 0 : tick);
  return ticks;
}

export class Plot {
  /** edges: the margins in pixels, where they are not those that all panels share. */
  constructor(element, edges = null) {
    this.element = element;
    this.edges = edges;
    this.canvas = document.createElement("canvas");
    element.append(this.canvas);
    this.range = [0, 1];
    this.measure();
  }

  /** Note the plotting area: left, top, width and height in CSS pixels. Asking for sizes at each point would lay out the page each time. */
  measure() {
    const { l, r, t, b } = this.edges ?? margins();
    [this.wide, this.high] = [this.element.clientWidth, this.element.clientHeight];
    this.area = { left: l, top: t, width: Math.max(this.wide - l - r, 1), height: Math.max(this.high - t - b, 1) };
  }

  /** Pixels from the left edge of the plot to a step. */
  x(step) {
    const { left, width } = this.area;
    return left + ((step - this.range[0]) / (this.range[1] - this.range[0])) * width;
  }

  /** The step at so many pixels from the left edge, or null outside the plotting area. */
  stepAt(pixel) {
    const { left, width } = this.area;
    if (pixel < left || pixel > left + width) return null;
    return this.range[0] + ((pixel - left) / width) * (this.range[1] - this.range[0]);
  }

  /** Pixels from the top edge to a position on the y axis, which runs from ends[0] at the bottom to ends[1]. */
  y(position) {
    const { top, height } = this.area;
    const [low, high] = this.ends;
    return top + height * (1 - (position - low) / (high - low));
  }

  positionAt(pixel) {
    const { top, height } = this.area;
    if (pixel < top || pixel > top + height) return null;
    return this.ends[0] + (1 - (pixel - top) / height) * (this.ends[1] - this.ends[0]);
  }

  /** Draw: y is {ends, ticks: [[position, text]], grid}; steps is about how many are named; paint(context, plot) fills the plotting area, over(context, plot) may leave it. */
  draw({ range, y, paint, over, steps = 9 }) {
    this.range = range;
    this.ends = y.ends;
    const sharp = devicePixelRatio || 1;
    this.measure();
    const { canvas, wide, high } = this;
    if (canvas.width !== Math.round(wide * sharp) || canvas.height !== Math.round(high * sharp)) {
      canvas.width = Math.round(wide * sharp);
      canvas.height = Math.round(high * sharp);
      canvas.style.width = `${wide}px`;
      canvas.style.height = `${high}px`;
    }
    const context = canvas.getContext("2d");
    context.setTransform(sharp, 0, 0, sharp, 0, 0);
    context.clearRect(0, 0, wide, high);
    context.font = `11px ${token("font")}`;
    const { left, top, width, height } = this.area;
    this.drawAxes(context, y, steps);
    context.save();
    context.beginPath();
    context.rect(left, top, width, height);
    context.clip();
    paint(context, this);
    context.restore();
    over?.(context, this);
  }

  drawAxes(context, { ticks, grid = true }, steps) {
    const { left, top, width, height } = this.area;
    const [line, faint, ink] = [token("line"), token("grid"), token("muted")];
    const stroke = (colour, ...points) => {
      context.strokeStyle = colour;
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(points[0], points[1]);
      context.lineTo(points[2], points[3]);
      context.stroke();
    };
    const at = (pixel) => Math.round(pixel) + 0.5;
    context.fillStyle = ink;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const [position, text] of ticks) {
      const pixel = at(this.y(position));
      if (grid) stroke(faint, left, pixel, left + width, pixel);
      stroke(line, left - TICK, pixel, left, pixel);
      context.fillText(text, left - TICK - 3, pixel);
    }
    context.textBaseline = "top";
    context.textAlign = "center";
    for (const step of roundTicks(...this.range, width < 420 ? Math.min(steps, 4) : steps, 1)) {
      const pixel = at(this.x(step));
      if (grid) stroke(faint, pixel, top, pixel, top + height);
      stroke(line, pixel, top + height, pixel, top + height + TICK);
      context.fillText(step.toLocaleString("en"), pixel, top + height + TICK + 3);
    }
  }
}

/** A linear y axis over [low, high] with a little room. */
export function linearAxis(low, high) {
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  const ends = [low - room, high + room];
  return { ends, ticks: roundTicks(...ends, 5).map((tick) => [tick, number(Number(tick.toPrecision(6)))]) };
}
