// Runs side by side: in what they differ, what was found in each, where they part, and their heatmaps on one scale or as a ratio.
import { h, icon, patch } from "./dom.js";
import { runColour, scaleFor } from "./colours.js";
import { findingsSideBySide, firstParting, over, settingsThatDiffer } from "./differences.js";
import { Heatmap } from "./heatmap.js";
import { plural, words } from "./text.js";

/** Shares by which numbers differ once runs have parted. */
const SHARES = [0.01, 0.1];

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
    const details = sessions.map(({ detail }) => detail);
    patch(
      this.element,
      h("div.panel-head", {}, h("h2.panel-title", {}, `${plural(sessions.length, "run")} compared`), h("span.panel-note", {}, "what differs")),
      table("Settings", sessions, settingsThatDiffer(details).map(([key, values]) => row(key, values)), "No setting differs.", (name) => this.act.compare(name, false)),
      table("Findings", sessions, findingRows(sessions), "No rule has found anything in any of them."),
      h("h3.side-title", {}, "Where they part"),
      h("ul.partings", {}, laid.map((one) => h("li", {}, h("b", {}, one.run), " ", partingText(shown, one)))),
    );
    this.drawMaps(shown);
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

function findingRows(sessions) {
  const cell = (entry) => (entry ? [h(`span.count.${entry.severity}${entry.open ? "" : ".dim"}`, {}, icon(entry.severity)), ` ${entry.where}, ${entry.when}`] : "–");
  return findingsSideBySide(sessions.map(({ digest }) => digest)).map(({ code, title, cells }) => row(`${code} ${title}`, cells.map(cell)));
}

/** "loss: by more than 1 % from step 12, by more than 10 % from step 40; row mass: ..." */
function partingText({ data, info }, other) {
  const of = (name, one, two) => {
    if (!one?.steps.length || !two?.steps.length) return `${name}: not recorded in both`;
    const parts = SHARES.map((share) => [share, firstParting(one, two, share)]).filter(([, found]) => found);
    if (!parts.length) return `${name}: never by more than 1 %`;
    const texts = parts.map(([share, { step, layer }]) => `more than ${100 * share} % from step ${step}${layer ? ` (${layer} first)` : ""}`);
    return `${name}: ${texts.join(", ")}`;
  };
  const loss = of("loss", data.loss, other.loss);
  return info ? `${loss}; ${of(words(info.name), data.heat, other.heat)}` : loss;
}
