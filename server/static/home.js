// The table of all runs: process, health, progress, curves in small, and the settings in which they differ.
import { h, icon, patch } from "./dom.js";
import { counts, runLink, stateChip } from "./runs.js";
import { ICONS } from "./status.js";
import { age, number, plural, words } from "./text.js";

/** Rows that are drawn until a reader asks for more. */
const PAGE = 100;
const LEVELS = ["error", "warning", "info", "recovered", "healthy"];
const STATES = ["running", "paused", "starting", "stale", "crashed", "failed", "finished"];
const rank = (list, value) => (list.indexOf(value) + 1 || list.length + 1);
const last = (list) => list.findLast((value) => value !== null) ?? null;

const COLUMNS = [
  { id: "name", title: "run", by: ({ name }) => name },
  { id: "process", title: "process", by: ({ beat }) => rank(STATES, beat?.state) },
  { id: "health", title: "health", by: ({ health }) => rank(LEVELS, health?.level) },
  { id: "step", title: "progress", by: ({ beat }) => -(beat?.step ?? -2) },
  { id: "loss", title: "loss", by: ({ loss }) => last(loss) },
  { id: "mass", title: "worst row mass", by: ({ mass }) => -Math.abs(Math.log(last(mass) ?? 1)) },
  { id: "time", title: "updated", by: ({ beat }) => -(beat?.time ?? 0) },
];
const natural = new Intl.Collator("en", { numeric: true });

/** Order two keys; what is not known comes last. */
function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined || Number.isNaN(a)) return 1;
  if (b === null || b === undefined || Number.isNaN(b)) return -1;
  return typeof a === "number" && typeof b === "number" ? a - b : natural.compare(a, b);
}

/** The runs that a search finds, in the order asked for: "loss", or "-loss" for the reverse; without one as the server has them. */
export function chosen(runs, { find, sort }, columns = []) {
  const parts = (find ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const text = (run) => [run.name, ...run.tags, run.beat?.words, run.health?.title, run.health?.text, run.problem, ...Object.entries(run.config).map(([key, value]) => `${key}=${value}`)].join(" ").toLowerCase();
  const found = parts.length ? runs.filter((run) => parts.every((part) => text(run).includes(part))) : [...runs];
  const reverse = sort?.startsWith("-");
  const id = reverse ? sort.slice(1) : sort;
  const by = COLUMNS.find((column) => column.id === id)?.by ?? (columns.includes(id) ? ({ config }) => config[id] ?? null : null);
  return by ? found.sort((a, b) => compare(by(a), by(b)) * (reverse ? -1 : 1)) : found;
}

/** A curve in small; a gap where a number was not finite or not measured. */
function sparkline(values, title) {
  if (!values.length) return h("span.dim", {}, "–");
  const known = values.filter((value) => value !== null);
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const y = (value) => (high > low ? 21 - (18 * (value - low)) / (high - low) : 12);
  const x = (index) => (values.length > 1 ? 1 + (78 * index) / (values.length - 1) : 40);
  let pen = false;
  const parts = values.map((value, index) => {
    const part = value === null ? "" : `${pen ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = value !== null;
    return part;
  });
  path.setAttribute("d", parts.join(""));
  svg.setAttribute("viewBox", "0 0 80 24");
  svg.setAttribute("class", "spark");
  svg.setAttribute("aria-hidden", "true");
  svg.append(path);
  const now = last(values);
  return h("span.spark-cell", { title }, svg, h("span.num", {}, now === null ? "NaN" : number(now)));
}

function progress({ beat, planned, pace }) {
  if (!beat || beat.step < 0) return h("span.dim", {}, "no step yet");
  if (!planned) return h("span", {}, `step ${beat.step.toLocaleString("en")}`);
  const part = Math.min((beat.step + 1) / planned, 1);
  const left = beat.state === "running" && pace && part < 1 ? `, ${duration((planned - beat.step - 1) / pace)} left` : "";
  const text = `${(beat.step + 1).toLocaleString("en")} of ${planned.toLocaleString("en")}${left}`;
  const bar = h("span.bar-fill");
  bar.style.width = `${(100 * part).toFixed(1)}%`;
  return h("span.progress", {}, h("span", {}, text), h("span.bar-back", { "aria-hidden": "true" }, bar));
}

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 129600 ? `${number(seconds / 3600, 2)} h` : `${Math.round(seconds / 86400)} d`;
}

function health({ health: own, findings, problem, pending }) {
  if (problem) return h("span.run-problem", {}, problem);
  if (!own) return h("span.dim", {}, pending ? "is being read" : "–");
  const text = own.level === "healthy" ? "" : own.text;
  return h(`span.health.${own.level}`, {}, icon(ICONS[own.level]), h("b", {}, own.title), counts(findings), h("span.dim", {}, text));
}

/** The folder of a run within the served one, "" for the top. */
const groupOf = ({ name }) => name.slice(0, Math.max(name.lastIndexOf("/"), 0));
const isArchived = (group) => group.split("/").includes("archive");

/** Draw the table. shown: {list: {runs, columns, directory, now}, state: {find, sort, with}, rows, unfolded, href(name)}; act: {open(name), sort(id), find(text), choose(name, on), compare(names), fold(group), more()}. */
export function drawHome(container, { list, state, rows = PAGE, unfolded, href }, act) {
  const { runs, columns, now } = list;
  const found = chosen(runs, state, columns);
  const pending = runs.filter((run) => run.pending).length;
  const search = h("input.search", {
    type: "search",
    placeholder: "Search names, states, settings (/)",
    "aria-label": "Search the runs",
    oninput: (event) => act.find(event.target.value),
  });
  search.setAttribute("value", state.find ?? "");
  const heads = [...COLUMNS.slice(0, 6), ...columns.map((id) => ({ id, title: words(id) })), COLUMNS[6]].map(({ id, title }) => head(id, title, state.sort, act));
  const draw = (run) => line(run, columns, now, { href, open: act.open, chosen: state.with, choose: act.choose, find: act.find });
  const groups = state.sort ? [""] : [...new Set(found.map(groupOf))].sort((a, b) => isArchived(a) - isArchived(b) || natural.compare(a, b));
  const bodies = groups.map((group) => {
    const own = state.sort ? found : found.filter((run) => groupOf(run) === group);
    const open = Boolean(state.find) || isArchived(group) === unfolded.has(group);
    const shown = open ? own.slice(0, rows).map(draw) : [];
    return h("tbody", { key: `group ${group}` }, group ? heading(group, own, open, heads.length, act) : null, shown);
  });
  const shown = state.with.filter((name) => runs.some((run) => run.name === name));
  const compare = shown.length > 1 ? h("button.compare", { type: "button", onclick: () => act.compare(shown) }, `Compare ${shown.length} runs`) : null;
  const more = found.length > rows && groups.length < 2 ? h("button.link", { type: "button", onclick: act.more }, `Show ${found.length - rows} more`) : null;
  const said = found.length === runs.length ? plural(runs.length, "run") : `${found.length} of ${plural(runs.length, "run")}`;
  patch(
    container,
    h("div.home-head", {}, h("h1", {}, "Runs"), h("span.dim", { role: "status" }, pending ? `${said}, ${pending} being read` : said), compare, search),
    h("div.table-wrap", { tabIndex: 0, role: "region", "aria-label": "Table of runs" }, h("table.home", {}, h("thead", {}, h("tr", {}, heads)), bodies)),
    found.length ? null : h("p.dim.none", {}, "No run matches the search."),
    more,
    h("p.dim.small", {}, list.directory),
  );
}

function head(id, title, sort, act) {
  const way = sort === id ? "ascending" : sort === `-${id}` ? "descending" : "none";
  const arrow = { ascending: " ↑", descending: " ↓", none: "" }[way];
  return h("th", { scope: "col", key: id, "aria-sort": way }, h("button.link", { type: "button", onclick: () => act.sort(id) }, title + arrow));
}

/** The row over the runs of a folder, which folds them; an archive is folded until a reader opens it. */
function heading(group, runs, open, width, act) {
  const button = h("button.link.fold", { type: "button", "aria-expanded": String(open), onclick: () => act.fold(group) }, icon("open"), group);
  return h("tr.group-row", { key: `heading ${group}` }, h("th", { scope: "rowgroup", colSpan: width }, button, h("span.dim", {}, plural(runs.length, "run"))));
}

function line(run, columns, now, link) {
  const box = h("input", {
    type: "checkbox",
    checked: link.chosen.includes(run.name),
    disabled: Boolean(run.problem) || (link.chosen.length > 5 && !link.chosen.includes(run.name)),
    "aria-label": `Choose ${run.name} to compare`,
    onchange: (event) => link.choose(run.name, event.target.checked),
  });
  const tags = run.tags.map((tag) => h("button.chip.tag", { type: "button", title: `Runs with ${tag}`, onclick: () => link.find(tag) }, tag));
  const cells = [
    h("th.run-cell", { scope: "row" }, h("span.run-name-cell", {}, box, runLink(run.name, link, h("span.run-name", {}, run.name.slice(groupOf(run).length && run.name.lastIndexOf("/") + 1))), tags)),
    h("td", {}, run.beat ? stateChip(run.beat) : "–"),
    h("td.health-cell", {}, health(run)),
    h("td", {}, progress(run)),
    h("td", {}, sparkline(run.loss, "the loss over all samples, and the latest")),
    h("td", {}, sparkline(run.mass, "the row mass furthest from 1 over all samples, and the latest")),
    ...columns.map((id) => h("td.setting", {}, run.config[id] ?? "–")),
    h("td", {}, run.beat ? age(Math.max(0, now - run.beat.time)) : "–"),
  ];
  return h("tr", { key: run.name }, cells);
}
