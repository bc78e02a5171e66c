// Runs side by side: in what they differ, as the server says, and their heatmaps on one scale or as a ratio.
import { compareRuns } from "./api.js";
import { h, icon, patch } from "./dom.js";
import { runColour, scaleFor } from "./colours.js";
import { Heatmap } from "./heatmap.js";
import { over } from "./ratio.js";
import { number, plural, words } from "./text.js";

/** Milliseconds after which runs that grow are compared again. */
const AGAIN = 10_000;

export class SideBySide {
  /** act: as Panel takes it, with change(patch) and compare(name, on). */
  constructor(act) {
    this.act = act;
    this.element = h("section.panel.compared", { "aria-label": "comparison", hidden: true });
    this.heats = h("div.heats");
    this.maps = new Map();
  }

  /** shown: {sessions, laid: [{run, loss, curve, heat}], data: {loss, curve, heat}, info, layer, range, ratio, chosen}; the first session is the one that the others are compared to. */
  show(shown) {
    const { sessions, laid } = shown;
    this.element.hidden = !laid.length;
    for (const [run, map] of this.maps) if (!laid.some((one) => one.run === run)) [map.remove(), this.maps.delete(run)];
    if (!laid.length) return;
    this.ask(sessions);
    this.drawTables(sessions);
    this.drawMaps(shown);
  }

  /** Compare the runs over all their samples: once, and again while one of them grows. */
  async ask(sessions) {
    const names = sessions.map(({ run }) => run);
    const old = names.join("\n") !== this.names || (sessions.some(({ still }) => !still) && performance.now() - this.asked > AGAIN);
    if (!old) return;
    if (names.join("\n") !== this.names) this.found = null;
    [this.names, this.asked] = [names.join("\n"), performance.now()];
    const asked = this.names;
    const found = await compareRuns(names).catch(({ message }) => ({ problem: message }));
    if (asked !== this.names) return;
    this.found = found;
    this.drawTables(sessions);
  }

  drawTables(sessions) {
    const { found } = this;
    const leave = (name) => this.act.compare(name, false);
    const tables = found?.settings ? compared(found, sessions, leave) : h("p.dim", { role: "status" }, found?.problem ?? "The runs are being compared.");
    patch(this.element, h("div.panel-head", {}, h("h2.panel-title", {}, `${plural(sessions.length, "run")} compared`), h("span.panel-note", {}, "what differs")), tables);
  }

  /** The scale that all heatmaps share: of their values, or of the others over the first. */
  scale({ info, data, laid, ratio }) {
    const others = laid.map(({ heat }) => heat).filter(Boolean);
    return ratio ? null : scaleFor(info, [data.heat, ...others]);
  }

  drawMaps(shown) {
    const { info, data, laid, layer, range, ratio, sessions } = shown;
    if (!data.heat) return;
    const maps = laid.filter(({ heat }) => heat?.steps.length);
    const series = maps.map(({ heat }) => (ratio ? over(heat, data.heat) : heat));
    const what = ratio ? { ...info, healthy: 1, unit: "1" } : info;
    const scale = ratio && series.length ? { ...scaleFor(what, series), kind: `ratio to ${sessions[0].run}` } : this.scale(shown);
    maps.forEach(({ run }, index) => {
      if (!this.maps.has(run)) {
        const map = new Heatmap(this.act, [], run);
        this.maps.set(run, map);
        this.heats.append(map.element);
      }
      const map = this.maps.get(run);
      map.title.textContent = ratio ? `${run} ÷ ${sessions[0].run}` : run;
      map.note.textContent = `${words(info.name)}${ratio ? ", ratio" : ", same scale"}`;
      map.show({ info: what, series: series[index], layer, range, windows: [], chosen: null, scale });
    });
  }

  remove() {
    for (const map of this.maps.values()) map.remove();
    this.element.remove();
    this.heats.remove();
  }
}

/** A table with a column a run; without rows a sentence. leave(name) takes a run out, where the heading offers that. */
function table(title, sessions, rows, none, leave = null) {
  const heads = sessions.map(({ run }, index) => {
    const swatch = h("i.stroke");
    swatch.style.borderTop = `2px solid ${runColour(index)}`;
    const out = leave && index ? h("button.quiet.leave", { type: "button", "aria-label": `Take ${run} out`, title: "Take out", onclick: () => leave(run) }, icon("failed")) : null;
    return h("th", { scope: "col" }, h("span.run-head", {}, swatch, run, out));
  });
  return [
    h("h3.side-title", {}, title),
    rows.length
      ? h("div.table-wrap", { tabIndex: 0, role: "region", "aria-label": `${title} of the runs` }, h("table.numbers.differences", {}, h("thead", {}, h("tr", {}, h("td"), heads)), h("tbody", {}, rows)))
      : h("p.dim", {}, none),
  ];
}

const row = (name, cells) => h("tr", {}, h("th", { scope: "row" }, name), cells.map((cell) => h("td", {}, cell)));

/** Settings, findings and partings. */
function compared({ settings, findings, runs, apart }, sessions, leave) {
  const said = (value) => value ?? "–";
  return [
    table("Settings", sessions, settings.map(({ name, values }) => row(name, values.map(said))), "No setting differs.", leave),
    table("Findings", sessions, findings.map(({ code, name, places }) => row(`${code} ${words(name)}`, places.map(found))), "No rule has found anything in any of them."),
    h("h3.side-title", {}, "Where they part"),
    h("ul.partings", {}, runs.slice(1).map((run) => h("li", {}, h("b", {}, run.name), " ", partingText(run, apart, runs[0])))),
  ];
}

/** A finding's "error, cleared: place and time" with its icon. */
function found(text) {
  if (!text) return "–";
  const [severity] = text.split(/[,:]/);
  return [h(`span.count.${severity}`, {}, icon(severity)), ` ${text}`];
}

/** "first differs at step 3 (row mass of layers.0); by more than 10 % from step 12; the loss from step 40". */
function partingText({ differs, parts, loss_parts: lossParts, loss }, apart, first) {
  const place = ({ step, metric, layer, first: one, other }) => `step ${step} (${words(metric)}${layer ? ` of ${layer}` : ""}: ${number(other)} against ${number(one)})`;
  if (!differs) return "is the same in every number that both have.";
  const far = parts ? `by more than ${100 * apart} % from ${place(parts)}` : `never by more than ${100 * apart} %`;
  const losses = lossParts ? `the loss by as much from step ${lossParts.step}` : "the loss never by as much";
  const ends = loss !== null && first.loss !== null ? `; it ends at ${number(loss, 4)} against ${number(first.loss, 4)}` : "";
  return `first differs at ${place(differs)}; ${far}; ${losses}${ends}.`;
}
