// The run list beside a run: what there is, the state of each run, and which are laid over one another.
import { h, icon, patch } from "./dom.js";
import { plural } from "./text.js";

/** The chip of a run's state: colour, icon and the server's words, which say what was lost. */
export function stateChip({ state, words }) {
  return h(`span.chip.state-${state}`, {}, icon(state), words);
}

export const counts = (findings) =>
  Object.entries(findings).map(([severity, count]) =>
    h(`span.count.${severity}`, { title: plural(count, severity) }, icon(severity), String(count)),
  );

/** A link that shows a run without loading the page again. */
export function runLink(name, { href, open, current = false }, ...children) {
  const onclick = (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    open(name);
  };
  return h("a.run-link", { href: href(name), "aria-current": current ? "true" : null, onclick }, ...children);
}

/** The runs beside one: the newest, and always the one shown and those laid over it. */
const BESIDE = 30;

/** Draw the list. act: {open(name), compare(name, on), home()}; shown: {runs, directory, run, others, href(name)}. */
export function drawRuns(container, { runs, directory, run, others, href }, act) {
  const near = runs.filter(({ name }, index) => index < BESIDE || name === run || others.includes(name));
  const items = near.map((item) => line(item, { run, others, href }, act));
  const summary = h("summary", {}, icon("open"), h("span.side-title", {}, "Runs"), h("span.dim", {}, String(runs.length)));
  const all = h("button.link.all-runs", { type: "button", onclick: act.home }, runs.length > near.length ? `All ${runs.length} runs` : "Table of all runs");
  const foot = h("p.dim.small.folder", { title: directory }, directory);
  patch(container, h("details", { open: matchMedia("(min-width: 1181px)").matches }, summary, h("ul.run-list", {}, items), all, foot));
}

function line(item, { run, others, href }, act) {
  const current = item.name === run;
  const { beat } = item;
  const facts = item.problem
    ? h("span.run-problem", {}, item.problem)
    : h("span.run-facts", {}, beat && stateChip(beat), h("span.dim", {}, beat && beat.step >= 0 ? `step ${beat.step}` : "no step yet"), counts(item.findings));
  const link = runLink(item.name, { href, open: act.open, current }, h("span.run-name", {}, item.name), facts);
  const box = h("input", {
    type: "checkbox",
    checked: current || others.includes(item.name),
    disabled: current || Boolean(item.problem),
    "aria-label": `Lay ${item.name} over the chosen run`,
    title: current ? "The chosen run" : "Lay over the chosen run",
    onchange: (event) => act.compare(item.name, event.target.checked),
  });
  return h(`li.run${current ? ".current" : ""}`, { key: item.name }, box, link);
}
