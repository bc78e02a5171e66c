// The two drawers: keys, and what the run is.
import { h } from "./dom.js";
import { number, unit, words } from "./text.js";

const KEYS = [
  ["j / k", "next, previous finding"],
  ["[ / ]", "previous, next sampled step"],
  ["f", "fit: show all steps and follow new ones"],
  ["Esc", "let go of the cursor, then of the finding"],
  ["t", "light or dark"],
  ["i", "about this run"],
  ["h", "all runs"],
  ["r", "rules and glossary"],
  ["/", "search the runs"],
  ["?", "these keys"],
];
const MOUSE = [
  ["point", "the cursor of all charts, with the values at that step"],
  ["click", "pin the cursor; on the heatmap also open a layer's heads"],
  ["drag", "zoom all charts to these steps"],
  ["double click", "show all steps again"],
];

function open(title, ...children) {
  const close = h("button.quiet", { type: "button", onclick: () => dialog.close() }, "Close");
  const dialog = h("dialog", { "aria-label": title }, h("div.dialog-head", {}, h("h2", {}, title), close), ...children);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
}

const list = (pairs) => h("dl.keys", {}, pairs.map(([key, text]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)]));

/** A word where it stands: what a metric means, where a healthy run is, and from which limits on rules flag it. */
export function showWord(info) {
  const limits = [info.low === null ? null : `below ${number(info.low)}`, info.high === null ? null : `above ${number(info.high)}`].filter(Boolean).join(" or ");
  const facts = [
    ["unit", unit(info.unit) || "none"],
    ["healthy", info.healthy === null ? "no one value" : `near ${number(info.healthy)}`],
    ["flagged", limits || "by no limit of its own"],
    ["measured", `one number a ${info.place}`],
  ];
  open(words(info.name), h("p", {}, info.text), pairs(facts), h("p", {}, h("a.link", { href: `?rules=glossary#word-${info.name}` }, "All words")));
}

const pairs = (facts) => h("dl.facts", {}, facts.map(([term, text]) => [h("dt", {}, term), h("dd", {}, text)]));

export function showKeys() {
  open("Keys", list(KEYS), h("h3", {}, "On the charts"), list(MOUSE), h("h3", {}, "For programs"), api());
}

const api = () => h("p", {}, "All of this over HTTP: ", h("a.link", { href: "/api/v1/docs" }, "/api/v1/docs"));

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 2 : 0)} %`;
/** Share of a training's time above which stabmon says that it takes too much. */
export const TOO_MUCH = 0.02;

function overhead({ overhead: share }) {
  if (share === null) return "not measured";
  const advice = share > TOO_MUCH ? ": more than it should be; sample fewer steps, as watch(every=) says" : "";
  return `${percent(share)} of the training's time${advice}`;
}

function lost({ samples, dropped }) {
  if (!dropped) return "none";
  return `${dropped.toLocaleString("en")} of ${(samples + dropped).toLocaleString("en")} (${percent(dropped / (samples + dropped))}): their steps are missing from all curves, and rules did not see them`;
}

/** "every step to 99, then every 10": the distances between sampled steps, in the order in which they changed. */
export function schedule(steps) {
  const parts = [];
  for (let index = 1; index < steps.length; index += 1) {
    const every = steps[index] - steps[index - 1];
    const last = parts[parts.length - 1];
    if (last?.every === every) Object.assign(last, { to: steps[index], count: last.count + 1 });
    else parts.push({ every, to: steps[index], count: 1 });
  }
  const lasting = parts.filter(({ count }) => count > 2);
  const text = (every) => (every === 1 ? "every step" : `every ${every} steps`);
  if (!lasting.length) return "too few samples to tell";
  const shown = lasting.slice(0, 4).map(({ every, to }, index, all) => (index < all.length - 1 ? `${text(every)} to ${to}` : text(every)));
  return `${shown.join(", then ")}${lasting.length > 4 ? ", and changing" : ""}`;
}

const bytes = (size) => (size < 1e6 ? `${(size / 1e3).toFixed(0)} kB` : size < 1e9 ? `${(size / 1e6).toFixed(1)} MB` : `${(size / 1e9).toFixed(2)} GB`);

const SHOWN = ["layer", "module", "kind", "heads", "head_dim", "max_length", "bias", "position", "qk_norm", "hybrid_norm", "layer_scale"];
const said = (value) => (value === null ? "–" : value === true ? "yes" : value === false ? "no" : typeof value === "number" ? number(value, 4) : String(value));

/** The description of the run: how it was measured, the attentions that were found, its configuration, versions. */
export function showRun({ detail, overheads }, steps) {
  const { info, heartbeat } = detail;
  const facts = [
    ["started", new Date(info.created).toLocaleString()],
    ["parameters", info.model.parameters.toLocaleString("en")],
    ["samples", `${heartbeat.samples.toLocaleString("en")} kept`],
    ["lost", lost(heartbeat)],
    ["schedule", schedule(steps)],
    ["overhead", overhead(heartbeat)],
    ["over time", overheads.length > 1 ? `${overheads.map(percent).join(", ")} while this page was open` : "known from now on, while this page is open"],
    ["size", bytes(detail.bytes)],
    ["heartbeat", `every ${number(heartbeat.interval)} s`],
    ...Object.entries(info.versions),
  ];
  const head = h("tr", {}, SHOWN.map((name) => h("th", { scope: "col" }, name.replaceAll("_", " "))));
  const rows = info.model.attentions.map((one) => h("tr", {}, SHOWN.map((name) => h("td", {}, said(one[name])))));
  open(
    `Run ${detail.name}`,
    pairs(facts),
    h("h3", {}, "Attention that was found"),
    h("div.table-wrap", {}, h("table.numbers", {}, h("thead", {}, head), h("tbody", {}, rows))),
    h("h3", {}, "Configuration"),
    h("pre.config", {}, Object.keys(info.config).length ? JSON.stringify(info.config, null, 2) : "none was given"),
  );
}
