// Small multiples: a plot a layer, all on one scale, so that the layer that is different is seen at once.
import { h, iconButton } from "./dom.js";
import { join } from "./axis.js";
import { drawLimits, paintBand, shade } from "./bands.js";
import { token } from "./colours.js";
import { logAxis, mark, reach, trace } from "./curves.js";
import { isMissing, nearest } from "./packed.js";
import { linearAxis, Plot } from "./plot.js";
import { reading } from "./text.js";

const EDGES = { l: 34, r: 14, t: 4, b: 18 };
const HEIGHT = 84;

export class Multiples {
  /** act: {hover(step), leave(), openLayer(layer)}. */
  constructor(act, tools) {
    this.act = act;
    this.title = h("h2.panel-title");
    this.note = h("span.panel-note");
    const csv = iconButton("download", "Download the layers as CSV: the steps in sight", () => this.download?.());
    const head = h("div.panel-head", {}, this.title, this.note, h("span.panel-tools", {}, ...tools, csv));
    this.grid = h("div.multiples");
    this.element = h("section.panel", { "aria-label": "layers" }, head, this.grid);
    this.cells = [];
    this.out = join(this);
    this.observer = new ResizeObserver(() => this.drawn && this.redraw());
    this.observer.observe(this.grid);
  }

  /** shown: as Curves.show takes it; windows are those of all layers, each with its finding's layer or null. */
  show(shown) {
    this.drawn = shown;
    this.makeCells();
    this.redraw();
  }

  makeCells() {
    const names = this.drawn.lines.map(({ name }) => name).join();
    if (names === this.names) return;
    this.names = names;
    this.cells = this.drawn.lines.map((line, index) => this.makeCell(line, index));
    this.grid.replaceChildren(...this.cells.map(({ element }) => element));
  }

  makeCell({ name, short, open }, index) {
    const value = h("b");
    const area = h("div.plot", { role: "img", "aria-label": name });
    area.style.height = `${HEIGHT}px`;
    const plot = new Plot(area, EDGES);
    const label = short ?? name;
    const act = () => this.drawn.lines[index].open();
    const caption = open ? h("button.link", { type: "button", onclick: act, title: `Show the heads of ${name}` }, label) : h("span", {}, label);
    const line = h("div.cursor.small-cursor", { hidden: true });
    area.addEventListener("pointermove", (event) => {
      const step = this.drawn ? plot.stepAt(event.clientX - area.getBoundingClientRect().left) : null;
      if (step === null) this.act.leave();
      else this.act.hover(step, null, this);
    });
    area.addEventListener("pointerleave", () => this.act.leave());
    area.addEventListener("dblclick", () => this.act.zoom(null));
    const element = h("figure.cell", {}, h("figcaption", {}, caption, value), h("div.plot-area", {}, area, line));
    return { element, plot, value, line };
  }

  redraw() {
    if (!this.grid.clientWidth) return;
    const { lines, range, windows, logarithmic, limits } = this.drawn;
    const place = logarithmic ? Math.log10 : (value) => value;
    const [low, high] = reach(lines, range) ?? (logarithmic ? [1, 10] : [0, 1]);
    const y = logarithmic ? logAxis(low, high, 2) : thinned(linearAxis(low, high));
    this.cells.forEach(({ plot }, index) => {
      const line = lines[index];
      const paint = (context) => {
        paintBand(context, plot, limits, place);
        shade(context, plot, windows.filter(({ finding }) => !finding || finding.layer === line.column.layer));
        context.lineJoin = "bevel";
        context.strokeStyle = token("accent");
        context.lineWidth = 1.3;
        context.beginPath();
        trace(context, plot, line, place);
        context.stroke();
        mark(context, plot, [line]);
        drawLimits(context, plot, limits, place);
      };
      plot.draw({ range, y, paint, steps: 3 });
    });
    this.element.dataset.range = range.join(" ");
    this.showCursor(this.cursor ?? null);
  }

  showRange(range) {
    if (!this.drawn) return;
    this.drawn = { ...this.drawn, range };
    this.redraw();
  }

  showCursor(cursor) {
    this.cursor = cursor;
    this.cells.forEach(({ plot, value, line }, index) => {
      const { steps, column } = this.drawn.lines[index];
      const at = cursor ? nearest(steps, cursor.step) : steps.length - 1;
      value.textContent = at < 0 ? "–" : reading(column.values[at], isMissing(column.values, at));
      const pixel = cursor ? plot.x(cursor.step) : -1;
      const { left, width } = plot.area;
      line.hidden = pixel < left || pixel > left + width;
      line.style.transform = `translateX(${pixel}px)`;
    });
  }

  remove() {
    this.out();
    this.observer.disconnect();
    this.element.remove();
  }
}

const thinned = (axis) => ({ ...axis, ticks: axis.ticks.filter((_, index) => index % 2 === 0) });
