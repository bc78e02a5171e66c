// The rules and the words as pages: a list of each, and one rule in full.
import { h, patch } from "./dom.js";
import { plotOf } from "./api.js";
import { prose, SECTIONS } from "./detail.js";
import { number, words } from "./text.js";

/** Draw the list of rules, one rule, or the glossary. shown: {page: "all", "glossary" or a code, rules, glossary, href(page)}; act: {open(page)}. */
export function drawRulebook(container, { page, rules, glossary, href }, act) {
  const link = (to, ...children) => {
    const onclick = (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      act.open(to);
    };
    return h("a.link", { href: href(to), onclick, "aria-current": to === page ? "page" : null }, ...children);
  };
  const head = h("nav.book-head", { "aria-label": "Reference" }, link("all", "Rules"), link("glossary", "Glossary"));
  const rule = rules.find(({ code }) => code === page);
  const body = page === "glossary" ? drawGlossary(glossary) : page === "all" ? drawList(rules, link) : rule ? drawRule(rule, link) : h("p", {}, `There is no rule ${page}.`);
  patch(container, head, h("article.book", { key: page }, body));
}

function drawList(rules, link) {
  const groups = [...new Set(rules.map(({ group }) => group))];
  return [
    h("h1", {}, "Rules"),
    h("p.dim", {}, `What is flagged in a run, from which limits on. ${rules.length} rules.`),
    groups.map((group) => [
      h("h2", {}, group === "user" ? "your own" : words(group)),
      h("ul.rules", {}, rules.filter((rule) => rule.group === group).map((rule) => h("li", {}, h("span.code", {}, rule.code), link(rule.code, words(rule.name)), h(`span.count.${rule.severity}`, {}, rule.severity), h("span.dim", {}, rule.title)))),
    ]),
  ];
}

function drawRule(rule, link) {
  const picture = rule.group === "user" ? null : h("img.rule-plot", { src: plotOf(rule.code), alt: `${words(rule.name)}: a bad and a good run`, onerror: (event) => event.target.remove() });
  return [
    h("h1", {}, h("span.code", {}, rule.code), " ", words(rule.name)),
    h("p", {}, h(`span.count.${rule.severity}`, {}, rule.severity), " ", h("span.dim", {}, `evidence: ${rule.evidence}`)),
    h("p.lead", {}, rule.title),
    picture,
    SECTIONS.map(([title, key]) => [h("h2", {}, title), h("p", {}, prose(rule[key]))]),
    rule.limits.length ? [h("h2", {}, "Limits"), limitTable(rule.limits)] : null,
    rule.symptom_of.length ? h("p", {}, "It is listed under its cause where that is ", rule.symptom_of.map((code, index) => [index ? ", " : "", link(code, code)]), ".") : null,
  ];
}

function limitTable(limits) {
  const head = h("tr", {}, ["limit", "default", "unit", "meaning", "source"].map((text) => h("th", { scope: "col" }, text)));
  const rows = limits.map((one) => h("tr", {}, h("th.code", { scope: "row" }, one.name), [number(one.default), one.unit === "1" ? "–" : one.unit, one.text, one.source].map((text) => h("td", {}, text))));
  return h("div.table-wrap", { tabIndex: 0, role: "region", "aria-label": "Limits" }, h("table.numbers.book-table", {}, h("thead", {}, head), h("tbody", {}, rows)));
}

/** Words of the page that are no metric. */
const TERMS = [
  ["finding", "What a rule flagged in one place, from the step at which it opened to the one at which it cleared."],
  ["sample", "One recorded step of a run: its values of all metrics."],
  ["overhead", "Time that stabmon took on the training thread, over the training's time."],
  ["twin", "The same model with softmax in place of sigmoid attention."],
  ["symptom", "A finding that follows from another one; it is listed under its cause."],
];

function drawGlossary(glossary) {
  const entries = glossary.map((metric) => [metric.name, [`${metric.text.replace(/\.$/, "")}.`, metric.healthy === null ? null : ` A healthy run is near ${number(metric.healthy)}.`, metric.unit === "1" ? null : ` Unit: ${metric.unit}.`, ` One number a ${metric.place}.`]]);
  const list = [...entries, ...TERMS].sort(([one], [other]) => one.localeCompare(other));
  return [h("h1", {}, "Glossary"), h("dl.glossary", {}, list.map(([word, text]) => [h("dt", { id: `word-${word}` }, words(word)), h("dd", {}, text)]))];
}
