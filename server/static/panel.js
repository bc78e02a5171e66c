// A panel: heading, value readout, plot and cursor line. All panels have the same margins, so their steps lie under one another.
import { iconButton, h } from "./dom.js";
import { join, showRange } from "./axis.js";
import { Plot } from "./plot.js";
import { pinch } from "./touch.js";

/** Pixels that a pointer moves before a click becomes a drag. */
const STILL = 4;

export class Panel {
  /** act: {hover, leave, zoom(range), click(step, row)}; name labels the panel for assistive technology. */
  constructor(name, act, { height = 150, tools = [], inline = false } = {}) {
    this.act = act;
    this.height = height;
    this.title = h("h2.panel-title");
    this.note = h("span.panel-note");
    this.readout = h(`div.readout${inline ? ".inline" : ""}`);
    this.area = h("div.plot", { role: "img", "aria-label": name });
    this.plot = new Plot(this.area);
    this.line = h("div.cursor", { hidden: true });
    this.flag = h("span.cursor-flag");
    this.line.append(this.flag);
    this.chosen = h("div.selection", { hidden: true });
    this.below = h("div.panel-below");
    const csv = iconButton("download", `Download ${name} as CSV: the steps in sight`, () => this.download?.());
    const head = h("div.panel-head", {}, this.title, this.note, inline && this.readout, h("span.panel-tools", {}, ...tools, csv));
    const frame = h("div.plot-area", {}, this.area, this.line, this.chosen);
    this.element = h("section.panel", { "aria-label": name }, head, inline ? null : this.readout, frame, this.below);
    this.leave = join(this);
    this.listen();
  }

  listen() {
    const { area } = this;
    area.addEventListener("pointermove", (event) => (this.from === undefined ? this.hover(event) : this.drag(event)));
    area.addEventListener("pointerleave", () => this.act.leave());
    area.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || this.stepAt(event) === null) return;
      this.from = event.clientX;
      area.setPointerCapture(event.pointerId);
    });
    area.addEventListener("pointerup", (event) => this.drop(event));
    area.addEventListener("pointercancel", () => this.letGo());
    area.addEventListener("dblclick", () => this.act.zoom(null));
    pinch(area, { range: () => this.drawn?.range, area: () => this.plot.area, show: showRange, zoom: this.act.zoom, began: () => this.letGo() });
    this.observer = new ResizeObserver(() => this.drawn && this.redraw());
    this.observer.observe(area);
  }

  /** The step under a pointer event, or null where it is outside the plotting area. */
  stepAt(event) {
    return this.drawn ? this.plot.stepAt(event.clientX - this.area.getBoundingClientRect().left) : null;
  }

  /** The row under a pointer event, for panels whose rows are 0, 1, 2 ... */
  rowAt(event) {
    const position = this.plot.positionAt(event.clientY - this.area.getBoundingClientRect().top);
    return position === null ? null : Math.round(position);
  }

  hover(event) {
    const step = this.stepAt(event);
    if (step === null) this.act.leave();
    else this.act.hover(step, this.rowAt(event), this);
  }

  /** The pixels that are being chosen, within the plotting area. */
  span(event) {
    const { left: edge } = this.area.getBoundingClientRect();
    const { left, width } = this.plot.area;
    return [this.from, event.clientX].map((x) => Math.min(Math.max(x - edge, left), left + width)).sort((a, b) => a - b);
  }

  drag(event) {
    const [first, last] = this.span(event);
    this.chosen.hidden = last - first < STILL;
    this.chosen.style.left = `${first}px`;
    this.chosen.style.width = `${last - first}px`;
  }

  drop(event) {
    if (this.from === undefined) return;
    const [first, last] = this.span(event);
    this.letGo();
    if (last - first >= STILL) this.act.zoom([this.plot.stepAt(first), this.plot.stepAt(last)]);
    else if (this.stepAt(event) !== null) this.act.click(this.stepAt(event), this.rowAt(event), this);
  }

  letGo() {
    this.from = undefined;
    this.chosen.hidden = true;
  }

  /** Draw {range, y, paint, over}, as Plot.draw takes it; it is drawn again where the size or the range changes. */
  draw(what) {
    this.drawn = what;
    this.area.style.height = `${this.height}px`;
    this.redraw();
  }

  redraw() {
    if (!this.area.clientWidth) return;
    this.plot.draw(this.drawn);
    this.element.dataset.range = this.drawn.range.join(" ");
    this.showCursor(this.cursor ?? null, this.row ?? null);
  }

  showRange(range) {
    if (!this.drawn) return;
    this.drawn = { ...this.drawn, range };
    this.redraw();
  }

  showCursor(cursor, row) {
    this.cursor = cursor;
    this.row = row;
    const pixel = cursor && this.drawn ? this.plot.x(cursor.step) : null;
    const { left, width } = this.plot.area;
    this.line.hidden = pixel === null || pixel < left - 0.5 || pixel > left + width + 0.5;
    if (!this.line.hidden) {
      this.line.style.transform = `translateX(${pixel}px)`;
      this.line.classList.toggle("pinned", cursor.pinned);
      this.flag.textContent = cursor.step;
    }
    this.read?.(cursor, row);
  }

  remove() {
    this.leave();
    this.observer.disconnect();
    this.element.remove();
  }
}
