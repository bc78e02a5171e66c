// The findings at the side: the gravest first, grouped by rule; one is opened to show why, and what to do.
import { h, icon } from "./dom.js";
import { drawCopyAll, drawDetail } from "./detail.js";
import { natural, number, span } from "./text.js";

const RANK = { error: 0, warning: 1, info: 2 };

/** What names a finding in the address: rule, layer, and the step at which it opened. */
export const keyOf = ({ code, layer, opened }) => `${code}:${layer ?? ""}:${opened}`;

/** What names the finding that this one follows from, as its symptom; null for one that stands for itself. */
const causeOf = ({ follows }) => (follows ? keyOf({ code: follows[0], layer: follows[1], opened: follows[2] }) : null);

/** Groups of findings by rule and severity: open before cleared, grave before light, early before late; the groups of
 * what follows from a group's findings are its symptoms. */
export function grouped(findings) {
  const known = new Set(findings.map(keyOf));
  const groups = byRule(findings.filter((finding) => !known.has(causeOf(finding))), "");
  for (const group of groups) {
    const own = new Set(group.findings.map(keyOf));
    group.symptoms = byRule(findings.filter((finding) => own.has(causeOf(finding))), `${group.key} > `);
    group.worst = Math.min(RANK[group.severity], ...group.symptoms.map((below) => RANK[below.severity]));
  }
  return groups.sort((a, b) => a.worst - b.worst || b.open - a.open || first(a) - first(b));
}

const first = (group) => group.findings[0].opened;

function byRule(findings, above) {
  const groups = new Map();
  for (const finding of findings) {
    const key = `${above}${finding.code} ${finding.severity} ${finding.cleared === null}`;
    if (!groups.has(key)) groups.set(key, { key, ...pick(finding), open: finding.cleared === null, findings: [], symptoms: [] });
    groups.get(key).findings.push(finding);
  }
  for (const group of groups.values()) {
    group.findings.sort((a, b) => a.opened - b.opened || natural(a.layer ?? "", b.layer ?? ""));
  }
  return [...groups.values()].sort((a, b) => RANK[a.severity] - RANK[b.severity] || b.open - a.open || first(a) - first(b));
}

const pick = ({ code, name, severity }) => ({ code, name, severity });

/** The findings in the order in which they are shown; j and k walk along it. */
export const inOrder = (findings) =>
  grouped(findings).flatMap((group) => [group, ...group.symptoms].flatMap((each) => each.findings));

const steps = ({ opened, cleared }) => (cleared === null ? `since ${opened}` : `${opened}–${cleared}`);

/** Draw the list. act: {choose(finding or null), zoom(finding)}; shown: {findings, chosen, rules, unfolded}. */
export function drawFindings(place, { findings, chosen, rules, unfolded }, act) {
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  const scrolled = place.scrollTop;
  const head = h("div.side-head", {}, h("h2.side-title", {}, "Findings"), h("span.dim", {}, String(findings.length)));
  const list = grouped(findings).map((group) => drawGroup(group, { chosen, rules, unfolded }, act));
  const none = h("p.dim.none", {}, "No rule has found anything. The curves show what was measured.");
  place.replaceChildren(head, findings.length ? h("ul.groups", {}, list) : none);
  place.scrollTop = scrolled;
  if (focused) place.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

function drawGroup(group, shown, act) {
  const { findings, severity, code, name, open } = group;
  const holds = findings.some((finding) => keyOf(finding) === shown.chosen);
  const expanded = holds || shown.unfolded.has(group.key);
  const layers = findings.map((finding) => finding.layer).filter(Boolean);
  const where = layers.length ? span([...new Set(layers)]) : "whole run";
  const since = open ? `since step ${findings[0].opened}` : `cleared at ${Math.max(...findings.map((one) => one.cleared))}`;
  const toggle = () => {
    if (findings.length === 1) return act.choose(holds ? null : findings[0]);
    if (expanded) shown.unfolded.delete(group.key);
    else shown.unfolded.add(group.key);
    return holds ? act.choose(null) : act.redraw();
  };
  const button = h(
    "button.group-head",
    { type: "button", "aria-expanded": String(expanded), onclick: toggle, "data-focus": group.key },
    icon(severity),
    h("span.group-name", {}, h("b", {}, name.replaceAll("-", " ")), h("span.dim", {}, where)),
    h("span.group-when", {}, h("span.code", {}, code), h("span.dim", {}, since)),
  );
  const word = h("span.visually-hidden", {}, `${severity}: `);
  button.prepend(word);
  const alone = findings.length === 1;
  const rows = expanded && !alone ? h("ul.rows", {}, findings.map((finding) => drawRow(finding, shown, act)), h("li", {}, drawCopyAll(findings))) : null;
  const detail = alone && holds ? drawDetail(findings[0], group, shown.rules, act) : null;
  const below = group.symptoms.map((symptom) => drawGroup(symptom, shown, act));
  const symptoms = below.length ? h("ul.groups.symptoms", { "aria-label": `what follows from ${code}` }, below) : null;
  return h(`li.group.${severity}${open ? "" : ".cleared"}`, {}, button, rows, detail, symptoms);
}

function drawRow(finding, { chosen, rules }, act) {
  const key = keyOf(finding);
  const holds = key === chosen;
  const place = `${finding.layer ?? "run"}${finding.head === null ? "" : ` · head ${finding.head}`}`;
  const button = h(
    "button.row",
    { type: "button", "aria-expanded": String(holds), "data-focus": key, onclick: () => act.choose(holds ? null : finding) },
    h("span", {}, place),
    h("span.num", {}, number(finding.value)),
    h("span.dim.num", { title: "steps" }, steps(finding)),
  );
  return h(`li${holds ? ".chosen" : ""}`, {}, button, holds ? drawDetail(finding, null, rules, act) : null);
}
