// The findings at the side, as the digest has them: its order, its groups, its words; one is opened to show why, and what to do.
import { h, icon, patch } from "./dom.js";
import { drawCopyAll, drawDetail, firstTry } from "./detail.js";
import { number, plural } from "./text.js";

/** The key of a finding in the address and in the digest: rule, layer, and the step at which it opened. */
export const keyOf = ({ code, layer, opened }) => `${code}:${layer ?? ""}:${opened}`;

/** The digest's entries with their findings; one that the list does not hold yet is left out. */
function resolved(entries, findings) {
  const known = new Map(findings.map((finding) => [keyOf(finding), finding]));
  const resolve = (entry) => ({
    ...entry,
    findings: entry.keys.map((key) => known.get(key)).filter(Boolean),
    symptoms: entry.symptoms.map(resolve),
  });
  return entries.map(resolve).filter((entry) => entry.findings.length);
}

/** The findings in the order in which they are shown; j and k walk along it. */
export const inOrder = ({ digest, findings }) =>
  resolved(digest.entries, findings).flatMap((entry) => [entry, ...entry.symptoms].flatMap((each) => each.findings));

function steps({ opened, last, cleared }) {
  if (cleared === null) return `since ${opened}`;
  return last === opened ? String(opened) : `${opened}–${last}`;
}

/** Draw the list. act: {choose(finding or null), zoom(finding)}; shown: {digest, findings, failures, chosen, rules, unfolded}. */
export function drawFindings(container, { digest, findings, failures, chosen, rules, unfolded }, act) {
  const head = h("div.side-head", {}, h("h2.side-title", {}, "Findings"), h("span.dim", {}, counted(digest, findings)));
  const list = resolved(digest.entries, findings).map((entry) => drawEntry(entry, { chosen, rules, unfolded }, act));
  const none = h("p.dim.none", {}, "No rule has found anything. The curves show what was measured.");
  patch(container, head, findings.length ? h("ul.groups", { key: "findings" }, list) : none, failures.length ? missing(failures) : null);
}

/** What is not in the run, and why; its other numbers are right. */
function missing(failures) {
  const when = ({ first_step: first, last_step: last, count }) => {
    if (last === null) return "before the first step";
    const steps = first === last ? `step ${last}` : first === null ? `up to step ${last}` : `steps ${first} to ${last}`;
    return count > 1 ? `${steps}, ${count} times` : steps;
  };
  const lines = failures.map((one) => h("li", {}, h("b", {}, one.subject), h("span.dim", {}, ` ${when(one)}`), h("p", {}, one.reason)));
  const head = h("div.side-head", {}, h("h2.side-title", {}, "Not recorded, and why"), h("span.dim", {}, String(failures.length)));
  return h("section.missing", { key: "failures" }, head, h("ul", {}, lines), h("p.dim.small", {}, "The other numbers of the run are right."));
}

/** "10 findings by 4 rules": a row is a rule's, a finding is one place of it. */
function counted({ entries }, findings) {
  const codes = new Set(entries.flatMap((entry) => [entry, ...entry.symptoms]).map(({ code }) => code));
  return findings.length ? `${plural(findings.length, "finding")} by ${plural(codes.size, "rule")}` : "none";
}

function drawEntry(entry, shown, act) {
  const { id, findings, severity, code, title, where, when, open } = entry;
  const holds = findings.some((finding) => keyOf(finding) === shown.chosen);
  const expanded = holds || shown.unfolded.has(id);
  const toggle = () => {
    if (findings.length === 1) return act.choose(holds ? null : findings[0]);
    if (expanded) shown.unfolded.delete(id);
    else shown.unfolded.add(id);
    return holds ? act.choose(null) : act.redraw();
  };
  const button = h(
    "button.group-head",
    { type: "button", "aria-expanded": String(expanded), onclick: toggle },
    h("span.visually-hidden", {}, `${severity}: `),
    icon(severity),
    h("span.group-name", {}, h("b", {}, title), h("span.dim", {}, where)),
    h("span.group-when", {}, h("span.code", {}, code), h("span.dim", {}, when)),
  );
  const alone = findings.length === 1;
  const copyAll = entry.first_try ? firstTry(entry.first_try) : drawCopyAll(findings);
  const rows = expanded && !alone ? h("ul.rows", {}, findings.map((finding) => drawRow(finding, entry, shown, act)), h("li", {}, copyAll)) : null;
  const detail = alone && holds ? drawDetail(findings[0], entry, shown.rules, act) : null;
  const below = entry.symptoms.map((symptom) => drawEntry(symptom, shown, act));
  const symptoms = below.length ? h("ul.groups.symptoms", { "aria-label": `what follows from ${code}` }, below) : null;
  return h(`li.group.${severity}${open ? "" : ".cleared"}`, { key: id }, button, rows, detail, symptoms);
}

function drawRow(finding, entry, { chosen, rules }, act) {
  const key = keyOf(finding);
  const holds = key === chosen;
  const where = `${finding.layer ?? "run"}${finding.head === null ? "" : ` · head ${finding.head}`}`;
  const button = h(
    "button.row",
    { type: "button", "aria-expanded": String(holds), onclick: () => act.choose(holds ? null : finding) },
    h("span", {}, where),
    h("span.num", {}, number(finding.value)),
    h("span.dim.num", { title: "steps" }, steps(finding)),
  );
  return h(`li${holds ? ".chosen" : ""}`, { key }, button, holds ? drawDetail(finding, entry, rules, act) : null);
}
