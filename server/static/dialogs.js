// The two drawers: keys, and what the run is.
import { h } from "./dom.js";
import { number } from "./text.js";

const KEYS = [
  ["j / k", "next, previous finding"],
  ["[ / ]", "previous, next sampled step"],
  ["f", "fit: show all steps and follow new ones"],
  ["Esc", "let go of the cursor, then of the finding"],
  ["t", "light or dark"],
  ["i", "about this run"],
  ["h", "all runs"],
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

export function showKeys() {
  open("Keys", list(KEYS), h("h3", {}, "On the charts"), list(MOUSE), h("h3", {}, "For programs"), api());
}

const api = () => h("p", {}, "All of this over HTTP, read-only: ", h("a.link", { href: "/api/v1/openapi.json" }, "/api/v1/openapi.json"));

const SHOWN = ["layer", "module", "kind", "heads", "head_dim", "max_length", "bias", "position", "qk_norm", "hybrid_norm", "layer_scale"];
const said = (value) => (value === null ? "–" : value === true ? "yes" : value === false ? "no" : typeof value === "number" ? number(value, 4) : String(value));

/** The description of the run: how it was measured, the attentions that were found, its configuration, versions. */
export function showRun({ detail }) {
  const { info, heartbeat } = detail;
  const facts = [
    ["started", new Date(info.created).toLocaleString()],
    ["parameters", info.model.parameters.toLocaleString("en")],
    ["samples", `${heartbeat.samples} kept, ${heartbeat.dropped} lost`],
    ["overhead", heartbeat.overhead === null ? "not measured" : `${(100 * heartbeat.overhead).toFixed(3)} % of the training's time`],
    ["heartbeat", `every ${number(heartbeat.interval)} s`],
    ...Object.entries(info.versions),
  ];
  const head = h("tr", {}, SHOWN.map((name) => h("th", { scope: "col" }, name.replaceAll("_", " "))));
  const rows = info.model.attentions.map((one) => h("tr", {}, SHOWN.map((name) => h("td", {}, said(one[name])))));
  open(
    `Run ${detail.name}`,
    h("dl.facts", {}, facts.map(([term, text]) => [h("dt", {}, term), h("dd", {}, text)])),
    h("h3", {}, "Attention that was found"),
    h("div.table-wrap", {}, h("table.numbers", {}, h("thead", {}, head), h("tbody", {}, rows))),
    h("h3", {}, "Configuration"),
    h("pre.config", {}, Object.keys(info.config).length ? JSON.stringify(info.config, null, 2) : "none was given"),
  );
}
