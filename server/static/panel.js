// A panel: heading, value readout, plot and cursor line. All panels have the same margins, so their steps lie under one another.
import { iconButton, h } from "./dom.js";
import { isDark, token } from "./colours.js";
import { join, margins, pixelOf, rowAt, stepAt } from "./axis.js";

const CONFIG = { displayModeBar: false, responsive: false, doubleClick: false, showTips: false, scrollZoom: false };
/** Plotly comes last, so that text appears before the charts are drawn. */
const loaded = new Promise((done) => addEventListener("DOMContentLoaded", done));
const touch = matchMedia("(pointer: coarse)");

export class Panel {
  /** act: {pin(step), zoom(range), click(step, row)}; name labels the panel for assistive technology. */
  constructor(name, act, { height = 150, tools = [], inline = false } = {}) {
    this.act = act;
    this.height = height;
    this.range = null;
    this.title = h("h2.panel-title");
    this.note = h("span.panel-note");
    this.readout = h(`div.readout${inline ? ".inline" : ""}`);
    this.plot = h("div.plot", { role: "img", "aria-label": name });
    this.line = h("div.cursor", { hidden: true });
    this.flag = h("span.cursor-flag");
    this.line.append(this.flag);
    this.below = h("div.panel-below");
    const csv = iconButton("download", `Download ${name} as CSV: what is visible`, () => this.download?.());
    const head = h("div.panel-head", {}, this.title, this.note, inline && this.readout, h("span.panel-tools", {}, ...tools, csv));
    const area = h("div.plot-area", {}, this.plot, this.line);
    this.element = h("section.panel", { "aria-label": name }, head, inline ? null : this.readout, area, this.below);
    this.leave = join(this);
    this.listen();
  }

  listen() {
    const { plot } = this;
    plot.addEventListener("pointermove", (event) => this.hover(event));
    plot.addEventListener("pointerleave", () => this.act.leave());
    let down = null;
    plot.addEventListener("pointerdown", (event) => (down = [event.clientX, event.clientY]), true);
    plot.addEventListener("click", (event) => {
      const still = down && Math.hypot(event.clientX - down[0], event.clientY - down[1]) < 4;
      const step = still ? stepAt(plot, event) : null;
      if (step !== null) this.act.click(step, rowAt(plot, event), this);
    }, true);
    this.observer = new ResizeObserver(() => this.drawn && this.redraw());
    this.observer.observe(plot);
  }

  hover(event) {
    const step = stepAt(this.plot, event);
    if (step === null) this.act.leave();
    else this.act.hover(step, rowAt(this.plot, event), this);
  }

  /** Draw traces; layout completes the shared one. Drawing again keeps the range. */
  async draw(traces, layout, range) {
    this.drawn = { traces, layout };
    this.range = range;
    await this.redraw();
  }

  async redraw() {
    await loaded;
    const { traces, layout } = this.drawn;
    const wide = this.plot.clientWidth;
    if (!wide) return;
    const shared = {
      width: wide,
      height: this.height,
      margin: margins(),
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: token("font"), size: 11, color: token("muted") },
      showlegend: false,
      hovermode: false,
      dragmode: touch.matches ? false : "zoom",
      selectdirection: "h",
      uirevision: "fixed",
      ...layout,
      xaxis: { ...axisStyle(), range: [...this.range], tickformat: ",d", nticks: wide < 500 ? 5 : 10, ...layout.xaxis },
      yaxis: { ...axisStyle(), fixedrange: true, ...layout.yaxis },
    };
    await globalThis.Plotly.react(this.plot, traces, shared, CONFIG);
    if (!this.wired) {
      this.wired = true;
      this.plot.on("plotly_relayout", (change) => this.relayouted(change));
      this.plot.on("plotly_doubleclick", () => this.act.zoom(null));
    }
    this.showCursor(this.cursor ?? null, null);
  }

  relayouted(change) {
    const from = change["xaxis.range[0]"] ?? change["xaxis.range"]?.[0];
    const to = change["xaxis.range[1]"] ?? change["xaxis.range"]?.[1];
    if (!this.quiet && from !== undefined) this.act.zoom([from, to]);
  }

  async showRange(range) {
    this.range = range;
    if (!this.drawn || !this.plot._fullLayout) return;
    this.quiet = true;
    await globalThis.Plotly.relayout(this.plot, { "xaxis.range": [...range] });
    this.quiet = false;
    this.showCursor(this.cursor ?? null, null);
  }

  showCursor(cursor, row) {
    this.cursor = cursor;
    const pixel = cursor ? pixelOf(this.plot, cursor.step) : null;
    this.line.hidden = pixel === null;
    if (pixel !== null) {
      this.line.style.transform = `translateX(${pixel}px)`;
      this.line.classList.toggle("pinned", cursor.pinned);
      this.flag.textContent = cursor.step;
      this.flag.classList.toggle("left", pixel > this.plot.clientWidth - 90);
    }
    this.read?.(cursor, row);
  }

  remove() {
    this.leave();
    this.observer.disconnect();
    if (this.drawn) globalThis.Plotly.purge(this.plot);
    this.element.remove();
  }
}

function axisStyle() {
  return {
    gridcolor: token("grid"),
    linecolor: token("line"),
    zeroline: false,
    showline: false,
    ticks: "outside",
    ticklen: 3,
    tickcolor: token("line"),
    fixedrange: false,
    automargin: false,
    showspikes: false,
  };
}

/** Shaded windows of findings: [{from, to, severity, chosen}], over the whole height of a plot. */
export function shades(windows) {
  return windows.map(({ from, to, severity, chosen }) => ({
    type: "rect",
    xref: "x",
    yref: "paper",
    x0: from,
    x1: to,
    y0: 0,
    y1: 1,
    layer: "below",
    fillcolor: token(severity),
    opacity: chosen ? 0.12 : isDark() ? 0.08 : 0.05,
    line: { width: 0 },
  }));
}
