// One finding in full: what, why, the numbers it was read from, and the fix with code to copy.
import { h, icon, iconButton } from "./dom.js";
import { plotOf } from "./api.js";
import { number, spot, words } from "./text.js";

const SAFETY = {
  "any time": "can be applied at any time",
  "before training": "apply before training: it changes what was learnt",
  "by hand": "to be done by hand",
};

/** Text in which ``double backquotes`` mark code. */
export function prose(text) {
  return text.split(/``(.+?)``/).map((part, index) => (index % 2 ? h("code", {}, part) : part));
}

/** Says which rule's fix is to be applied before this one's: both change the same thing. */
export const firstTry = (code) => h("p.first-try", {}, `First try the fix of ${code}, which changes the same thing in the same layers; this one is for what is left then.`);

export function drawDetail(finding, entry, rules, act) {
  const rule = rules.get(finding.code);
  const parts = [
    h("p.what", {}, finding.message),
    h("p.cause", {}, h("span.label", {}, "Cause "), finding.cause),
    facts(finding),
    evidence(finding.cells),
    entry.first_try ? firstTry(entry.first_try) : null,
    ...finding.fixes.map((fix, index) => drawFix(fix, index || Boolean(entry.first_try))),
    h("p.actions", {}, h("button.link", { type: "button", onclick: () => act.zoom(finding) }, "Zoom to it")),
    rule ? about(rule, act.openRule) : null,
  ];
  return h("div.detail", {}, parts.filter(Boolean));
}

function facts(finding) {
  const end = finding.cleared === null ? "not cleared yet" : `cleared at step ${finding.cleared}`;
  const pairs = [
    ["worst", `${number(finding.value)} at step ${finding.peak}, limit ${number(finding.limit)}`],
    ["steps", `from ${finding.opened}, ${end}`],
    ...(finding.times > 1 ? [["opened", `${finding.times} times, last at step ${finding.reopened}`]] : []),
    ...(finding.lead === null ? [] : [["lead", `${finding.lead} steps before the loss showed it`]]),
    ["metric", `${words(finding.metric)} · ${spot(finding)}`],
    ["confidence", `${Math.round(100 * finding.confidence)} %`],
    ["evidence", `the rule's limit is ${finding.evidence === "paper" ? "from the paper" : finding.evidence === "literature" ? "from the literature" : finding.evidence}`],
  ];
  return h("dl.facts", {}, pairs.map(([term, text]) => [h("dt", {}, term), h("dd", {}, text)]));
}

function evidence(cells) {
  if (!cells.length) return null;
  const rows = cells.map((cell) =>
    h("tr", {}, h("td", {}, words(cell.metric)), h("td", {}, spot(cell)), h("td.num", {}, String(cell.step)), h("td.num", {}, number(cell.value))),
  );
  const head = h("tr", {}, ["read from", "place", "step", "value"].map((text) => h("th", { scope: "col" }, text)));
  return h("div.table-wrap", {}, h("table.numbers.evidence", {}, h("thead", {}, head), h("tbody", {}, rows)));
}

/** A change in words: its title, value and setting. */
function setting(fix) {
  const value = fix.value === null ? "" : ` ${fix.kind === "learning_rate" ? "x " : ""}${number(fix.value, 4)}`;
  return `${fix.title || words(fix.kind)}${value}${fix.setting ? ` ${fix.setting}` : ""}`;
}

function drawFix(fix, later) {
  const parts = fix.made_of?.length ? fix.made_of : [fix];
  const title = `${later ? "Or" : "Suggested fix"}: ${parts.map(setting).join(", with ")}`;
  const { effect, diff } = fix;
  return h(
    "section.fix",
    {},
    h("h3", {}, title),
    h("p", {}, fix.why),
    effect && h("p", {}, `Expected: ${words(effect.metric)} ${number(effect.before)} → ${number(effect.after)}`),
    codeBlock(fix.code, "Copy the code"),
    diff && h("details", {}, h("summary", {}, "As a change to your own code"), codeBlock(diff, "Copy the diff")),
    h("p.dim.small", {}, fix.module ? `${fix.module}: ` : "", SAFETY[fix.safety] ?? fix.safety),
  );
}

function codeBlock(text, label) {
  return h("div.code-block", {}, h("pre", {}, h("code", {}, text)), copyButton(text, label));
}

/** The first fix of several findings in one piece of code, where all have one of the same kind. */
export function drawCopyAll(findings) {
  const fixes = findings.map((finding) => finding.fixes[0]);
  if (!fixes.every((fix) => fix && fix.kind === fixes[0].kind)) return null;
  const code = [...new Set(fixes.map((fix) => fix.code))].join("\n\n");
  return h("p.copy-all.dim", {}, `The ${fixes[0].title || words(fixes[0].kind)} fix for all of these`, copyButton(code, "Copy the code for all of these"));
}

function copyButton(text, label = "Copy the code") {
  return iconButton("copy", label, async ({ currentTarget: button }) => {
    const done = await copy(text);
    button.replaceChildren(icon(done ? "finished" : "failed"));
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  });
}

/** Copy text; the clipboard API needs a secure context, which an address other than this machine's is not. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea.visually-hidden", {}, text);
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** A bad and a good run side by side; a rule of the user's own has no such picture. */
function plot(rule) {
  if (rule.group === "user") return null;
  const alt = `${rule.name.replaceAll("-", " ")}: a bad and a good run`;
  return h("img.rule-plot", { src: plotOf(rule.code), alt, loading: "lazy", onerror: (event) => event.target.remove() });
}

/** The sections of a rule's documentation: heading and field. */
export const SECTIONS = [
  ["What it checks", "checks"],
  ["Why it matters", "matters"],
  ["Suggested fix", "fix"],
  ["When the fix is wrong", "wrong"],
  ["References", "references"],
];

function about(rule, openRule) {
  return h(
    "details.about",
    {},
    h("summary", {}, `About ${rule.code}`),
    plot(rule),
    SECTIONS.map(([title, key]) => [h("h4", {}, title), h("p", {}, prose(rule[key]))]),
    h("p", {}, h("button.link", { type: "button", onclick: () => openRule(rule.code) }, `${rule.code} with its limits and their sources`)),
  );
}
