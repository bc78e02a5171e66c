// The run list: what there is, the state of each run, and which are laid over one another.
import { h, icon } from "./dom.js";
import { plural } from "./text.js";

/** The chip of a run's state: colour, icon and the server's words, which say what was lost. */
export function stateChip({ state, words }) {
  return h(`span.chip.state-${state}`, {}, icon(state), words);
}

const counts = (findings) =>
  Object.entries(findings).map(([severity, count]) =>
    h(`span.count.${severity}`, { title: plural(count, severity) }, icon(severity), String(count)),
  );

/** Draw the list. act: {open(name), compare(name, on)}; shown: {runs, directory, run, others, href(name)}. */
export function drawRuns(container, { runs, directory, run, others, href }, act) {
  const focused = container.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  const open = container.querySelector("details")?.open ?? matchMedia("(min-width: 720px)").matches;
  const items = runs.map((item) => line(item, { run, others, href }, act));
  const summary = h("summary", {}, icon("open"), h("span.side-title", {}, "Runs"), h("span.dim", {}, String(runs.length)));
  const list = h("ul.run-list", {}, items);
  const foot = h("p.dim.small.folder", { title: directory }, directory);
  container.replaceChildren(h("details", { open }, summary, list, foot));
  if (focused) container.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
}

function line(item, { run, others, href }, act) {
  const current = item.name === run;
  const link = h(
    "a.run-link",
    {
      href: href(item.name),
      "aria-current": current ? "true" : null,
      "data-focus": `open ${item.name}`,
      onclick: (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        act.open(item.name);
      },
    },
    h("span.run-name", {}, item.name),
    item.problem
      ? h("span.run-problem", {}, item.problem)
      : h("span.run-facts", {}, stateChip(item), h("span.dim", {}, item.step < 0 ? "no step yet" : `step ${item.step}`), counts(item.findings)),
  );
  const box = h("input", {
    type: "checkbox",
    checked: current || others.includes(item.name),
    disabled: current || Boolean(item.problem),
    "aria-label": `Lay ${item.name} over the chosen run`,
    title: current ? "The chosen run" : "Lay over the chosen run",
    "data-focus": `with ${item.name}`,
    onchange: (event) => act.compare(item.name, event.target.checked),
  });
  return h(`li.run${current ? ".current" : ""}`, {}, box, link);
}
