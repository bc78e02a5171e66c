// The panels over one step axis: heatmap, curves or small multiples, loss, gradient norm; what they show follows from the address.
import { h, icon, iconButton } from "./dom.js";
import { fullRange } from "./axis.js";
import { limitsOf, warmUp } from "./bands.js";
import { depthColour } from "./colours.js";
import { GRADIENT, LOSS, overlay, overlayLegend } from "./compare.js";
import { saveCsv } from "./csv.js";
import { Curves, wantsLog } from "./curves.js";
import { keyOf } from "./findings.js";
import { Heatmap, summaryTable } from "./heatmap.js";
import { Multiples } from "./multiples.js";
import { SideBySide } from "./sidebyside.js";
import { labels, spot, unit, words } from "./text.js";

/** The metric to show when the address names none: the first finding's, else the glossary's first. */
export function defaultMetric(session) {
  const layered = session.detail.metrics.filter((metric) => metric.place !== "run");
  const found = session.findings.find((finding) => layered.some((metric) => metric.name === finding.metric));
  return found?.metric ?? layered[0]?.name ?? null;
}

const RATE = "learning_rate";

export class Charts {
  /** act: {change(patch), hover, leave, click, zoom, openLayer(layer)}. */
  constructor(container, act) {
    this.act = act;
    this.select = h("select", { "aria-label": "Metric", onchange: () => act.change({ metric: this.select.value }) });
    this.back = h("button.crumb", { type: "button", hidden: true, onclick: () => act.change({ layer: null }) }, "all layers");
    this.tableButton = iconButton("table", "Show the heatmap as a table", () => this.toggleTable(), { "aria-expanded": "false" });
    this.scaleButton = h("button.link.small", { type: "button", onclick: () => this.toggleScale() });
    this.heat = new Heatmap(act, []);
    this.reset = h("button.chip.reset", { type: "button", hidden: true, title: "Show all steps (f)", onclick: () => act.zoom(null) }, icon("fit"), "reset zoom");
    this.apart = toggle("by layer", "A plot a layer, all on one scale", () => act.change({ view: "layers" }));
    this.together = toggle("overlaid", "All layers in one plot", () => act.change({ view: null }));
    this.curves = new Curves("curves", act, { height: 172, tools: [this.apart, this.scaleButton] });
    this.multiples = new Multiples(act, [this.together]);
    this.loss = new Curves("loss", act, { height: 122, inline: true });
    this.gradient = new Curves("gradient norm", act, { height: 122, inline: true });
    this.heat.title.append(this.select);
    this.heat.note.append(this.back);
    this.heat.title.after(iconButton("info", "What is this?", () => act.explain(this.info)));
    this.heat.element.querySelector(".panel-tools").prepend(this.reset, this.tableButton);
    this.loss.title.textContent = "loss";
    this.gradient.title.textContent = "gradient norm";
    this.beside = new SideBySide(act);
    this.ratioButton = toggle("one scale", "Change between the heatmaps on one scale and the ratio to the chosen run", () => act.change({ compare: this.state.compare === "ratio" ? null : "ratio" }));
    this.heat.element.querySelector(".panel-tools").prepend(this.ratioButton);
    this.panels = [this.heat, this.curves, this.multiples, this.loss, this.gradient];
    const [heat, ...rest] = this.panels.map((panel) => panel.element);
    container.replaceChildren(this.beside.element, heat, this.beside.heats, ...rest);
  }

  /** What a live stream must send for what is shown. */
  selections() {
    const { metric, layer } = this;
    return [...new Set([LOSS, GRADIENT, RATE, metric, layer ? `${metric}@${layer}` : null].filter(Boolean))];
  }

  /** Read and draw what the state asks for; returns false when a newer call has overtaken this one. */
  async show(session, others, state) {
    const mine = (this.request = (this.request ?? 0) + 1);
    this.metric = session.metric(state.metric) ? state.metric : defaultMetric(session);
    const info = this.metric ? session.metric(this.metric) : null;
    this.layer = info?.layers.includes(state.layer) && info.heads[info.layers.indexOf(state.layer)] > 1 ? state.layer : null;
    const asked = state.from !== null && state.to !== null ? [state.from, state.to] : null;
    const read = (kind, metric, layer = null) => (metric ? session.read(kind, metric, layer, asked) : null);
    const [heat, curve, loss, gradient, rate, laid] = await Promise.all([
      read("heatmap", this.metric, this.layer),
      read("series", this.metric, this.layer),
      read("series", LOSS),
      read("series", GRADIENT),
      session.read("series", RATE, null),
      overlay(others, this.metric, this.layer, asked),
    ]);
    if (mine !== this.request) return false;
    Object.assign(this, { session, others, state, info, asked, data: { heat, curve, loss, gradient, laid }, warm: warmUp(rate) });
    this.draw();
    return true;
  }

  range() {
    const { heat, curve, loss, gradient, laid } = this.data;
    if (this.asked) return this.asked;
    const all = [heat, curve, loss, gradient, ...laid.map((one) => one.loss)].filter((series) => series?.steps.length);
    const firsts = all.map(({ steps }) => steps[0]);
    const lasts = all.map(({ steps }) => steps[steps.length - 1]);
    return all.length ? fullRange([Math.min(...firsts), Math.max(...lasts)]) : [0, 1];
  }

  /** Steps that were sampled, for walking along them. */
  get steps() {
    return (this.data?.curve ?? this.data?.loss)?.steps ?? [];
  }

  windows() {
    const { findings, detail } = this.session;
    const all = findings.map((finding) => span(finding, detail.heartbeat.step));
    const chosen = all.find(({ finding }) => keyOf(finding) === this.state.finding);
    const kinds = ["info", "warning", "error"].flatMap((severity) => [true, false].map((open) => ({ severity, open })));
    const spans = kinds.flatMap(({ severity, open }) => merged(all.filter((one) => one.severity === severity && one.open === open)));
    return { spans, shaded: chosen ? [{ ...chosen, chosen: true }] : spans, chosen, each: all };
  }

  draw() {
    const { session, data } = this;
    const range = this.range();
    const { spans, shaded, chosen } = this.windows();
    const empty = !data.heat?.steps.length;
    this.heat.element.hidden = empty;
    const apart = this.state.view === "layers" && !data.laid.length;
    this.curves.element.hidden = empty || apart;
    this.multiples.element.hidden = empty || !apart;
    this.reset.hidden = !this.asked;
    this.apart.hidden = Boolean(data.laid.length);
    this.drawHead();
    const ratio = this.state.compare === "ratio";
    const sessions = [session, ...this.others.filter(({ run }) => data.laid.some((one) => one.run === run))];
    const compared = { sessions, laid: data.laid, data, info: this.info, layer: this.layer, range, ratio };
    this.beside.show(compared);
    this.ratioButton.hidden = !data.laid.length;
    this.ratioButton.textContent = ratio ? "as a ratio" : "on one scale";
    if (!empty) {
      const scale = data.laid.length ? this.beside.scale(compared) : null;
      this.heat.show({ info: this.info, series: data.heat, layer: this.layer, range, windows: spans, chosen, scale });
      this.drawCurves(range, shaded);
      this.heat.download = () => this.save(this.metric, namedLines(data.curve));
      if (this.table) this.fillTable();
    }
    const firsts = { [LOSS]: data.loss, [GRADIENT]: data.gradient };
    for (const [panel, metric] of [[this.loss, LOSS], [this.gradient, GRADIENT]]) {
      const lines = overlayLegend(session.run, firsts[metric], data.laid, metric === LOSS ? "loss" : "gradient");
      panel.element.hidden = !lines.some((line) => line.steps.length);
      panel.note.textContent = noteOf(session.metric(metric));
      panel.download = () => this.save(metric, lines);
      const logarithmic = metric === GRADIENT && wantsLog(lines).sensible;
      if (!panel.element.hidden) panel.show({ lines, range, windows: shaded, logarithmic, warm: this.warm });
    }
  }

  drawHead() {
    const options = this.session.detail.metrics.filter((metric) => metric.place !== "run");
    const names = options.map((metric) => metric.name).join();
    if (this.select.dataset.names !== names) {
      this.select.dataset.names = names;
      this.select.replaceChildren(...options.map(({ name, text }) => h("option", { value: name, title: text }, words(name))));
    }
    this.select.value = this.metric;
    this.back.hidden = !this.layer;
    this.heat.note.replaceChildren(
      ...(this.layer ? [this.back, h("span", {}, "›"), h("b", {}, this.layer), h("span", {}, "heads")] : [h("span", {}, "layer × step")]),
    );
    this.heat.title.title = this.info?.text ?? "";
    this.heat.area.setAttribute("aria-label", `Heatmap of ${words(this.metric ?? "")}; the table button shows it as a table`);
  }

  drawCurves(range, windows) {
    const { data, session, metric, layer } = this;
    const title = `${words(metric)}${unit(this.info.unit) ? `, ${this.info.unit}` : ""}`;
    let lines;
    if (data.laid.length) {
      lines = overlayLegend(session.run, data.curve, data.laid, "curve");
      this.curves.note.textContent = `${layer ?? "largest over layers"}, by run`;
    } else {
      const short = shortNames(data.curve);
      lines = namedLines(data.curve).map((line, index, all) => ({
        ...line,
        short: short[index],
        colour: depthColour(index, all.length),
        open: layer || !this.canOpen(line.column.layer) ? null : () => this.act.openLayer(line.column.layer),
      }));
      this.curves.note.textContent = layer ? `heads of ${layer}` : "by layer";
    }
    this.curves.title.textContent = this.multiples.title.textContent = title;
    this.multiples.note.textContent = layer ? `heads of ${layer}, one scale` : "by layer, one scale";
    const { possible, sensible } = wantsLog(lines);
    const logarithmic = possible && (this.state.y ? this.state.y === "log" : sensible);
    this.scaleButton.hidden = !possible;
    this.scaleButton.textContent = logarithmic ? "log y" : "linear y";
    this.scaleButton.title = logarithmic ? "Change to a linear axis" : "Change to a log axis";
    const limits = limitsOf(this.info);
    this.curves.download = this.multiples.download = () => this.save(metric, lines);
    if (this.curves.element.hidden) this.multiples.show({ lines, range, windows: this.windows().each, logarithmic, limits });
    else this.curves.show({ lines, range, windows, logarithmic, limits, warm: this.warm });
  }

  canOpen(layer) {
    return this.info.heads[this.info.layers.indexOf(layer)] > 1;
  }

  toggleScale() {
    this.act.change({ y: this.scaleButton.textContent === "log y" ? "linear" : "log" });
  }

  toggleTable() {
    this.table?.remove();
    this.table = this.table ? null : h("div");
    this.tableButton.setAttribute("aria-expanded", String(Boolean(this.table)));
    if (!this.table) return;
    this.heat.below.append(this.table);
    this.fillTable();
  }

  fillTable() {
    this.table.replaceChildren(summaryTable(this.data.heat, this.asked, `${words(this.metric)}, ${this.layer ?? "all layers"}`));
  }

  save(what, lines) {
    saveCsv(`${this.session.run}-${what}.csv`, lines.map((line) => ({ ...line, name: line.name || what })), this.asked);
  }

  close() {
    this.request = Infinity;
    this.beside.remove();
    this.panels.forEach((panel) => panel.remove());
  }
}

const toggle = (text, title, onclick) => h("button.link.small", { type: "button", title, onclick }, text);

/** One line a column; in files a layer has its full name. */
const namedLines = (series) => series.columns.map((column) => ({ name: spotName(column), steps: series.steps, column }));
const spotName = (column) => (column.head === null ? spot(column) : `${column.layer} head ${column.head}`);
const shortNames = ({ columns }) => (columns[0].head === null ? labels(columns.map(({ layer }) => layer)) : columns.map(({ head }) => `head ${head}`));
const noteOf = (info) => (info?.unit && unit(info.unit) ? info.unit : "");

/** The steps of a finding, since it last opened; one that is open reaches to the newest step. */
function span(finding, newest) {
  const end = finding.cleared === null ? Math.max(finding.last, newest) : finding.last;
  const { severity, cleared } = finding;
  return { from: (finding.reopened ?? finding.opened) - 0.5, to: end + 0.5, severity, open: cleared === null, finding };
}

/** Windows of one severity, joined where they overlap, so that many findings do not darken the charts. */
function merged(spans) {
  const result = [];
  for (const next of spans.map((one) => ({ ...one })).sort((a, b) => a.from - b.from)) {
    const before = result[result.length - 1];
    if (before && next.from <= before.to) before.to = Math.max(before.to, next.to);
    else result.push(next);
  }
  return result;
}
