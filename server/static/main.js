// The page: the address says what is shown, sessions bring it, the parts draw it.
import { ApiError, listRules, listRuns } from "./api.js";
import { currentCursor, showCursor, showRange } from "./axis.js";
import { Charts } from "./charts.js";
import { isDark, onSystemTheme } from "./colours.js";
import { showKeys, showRun, showWord } from "./dialogs.js";
import { byId, h, iconButton } from "./dom.js";
import { drawFindings, inOrder, keyOf } from "./findings.js";
import { listen } from "./keyboard.js";
import { nearest } from "./packed.js";
import { showRules, showRuns } from "./overview.js";
import { drawRuns } from "./runs.js";
import { Session } from "./session.js";
import { change, onChange, state } from "./state.js";
import { drawStatus, drawVerdict } from "./status.js";

const EVERY = 4000;
const containers = Object.fromEntries(["runs", "status", "tools", "verdict", "message", "home", "panels", "findings"].map((id) => [id, byId(id)]));
const unfolded = new Set();
let rules = new Map();
let list = null;
let session = null;
let others = [];
let charts = null;
let lost = false;
let frame = 0;
let later = null;
/** The shown run has stored nothing yet. */
let waiting = false;

const following = () => state.from === null || state.to === null;

function say(title, text, action = null) {
  containers.message.hidden = !title;
  containers.message.replaceChildren(...(title ? [h("h2", {}, title), h("p", {}, text), action].filter(Boolean) : []));
}

function fail(error) {
  if (error.name === "AbortError") return;
  containers.panels.classList.remove("loading");
  const gone = error instanceof ApiError && [404, 409, 410].includes(error.status);
  if (gone && drawStarting()) return;
  const retry = h("button", { type: "button", onclick: () => start() }, "Try again");
  say(gone ? "This run cannot be shown" : "Something went wrong", error.message, retry);
  if (!gone && !(error instanceof ApiError)) console.error(error);
  if (gone) clearRun();
}

function clearRun() {
  waiting = false;
  session?.close();
  session = null;
  charts?.close();
  charts = null;
  for (const name of ["status", "verdict", "panels", "findings"]) containers[name].replaceChildren();
  containers.verdict.className = "verdict";
  document.body.classList.remove("has-run");
  document.title = "stabmon";
}

const NOTHING = { rules: null, layer: null, step: null, from: null, to: null, finding: null };
const href = (name) => `?${new URLSearchParams({ run: name, ...(state.theme ? { theme: state.theme } : {}) })}`;
const open = (name) => change({ ...NOTHING, run: name, with: state.with.filter((one) => one !== name) });
/** Lay a run over the chosen one, or take it out; six are the most that can be distinguished. */
const compare = (name, on) => change({ with: on ? [...state.with, name].slice(-5) : state.with.filter((one) => one !== name) });
const NOWHERE = { ...NOTHING, run: null, with: [], metric: null };
const home = () => change(NOWHERE);
const openRules = (page = "all") => change({ ...NOWHERE, rules: page });

function drawList() {
  document.body.classList.toggle("at-home", !state.run);
  if (!state.run) showOverview();
  else if (list) drawRuns(containers.runs, { ...list, run: session?.run ?? state.run, others: state.with, href }, { open, compare, home });
}

/** What is there where no run is shown. */
async function showOverview() {
  const acts = { say, change, open, redraw: drawList };
  if (state.rules) await showRules(containers.home, state, acts);
  else if (list) showRuns(containers.home, { list, state, href }, acts);
  containers.panels.dataset.drawn = location.search;
}

/** Show a run that has stored nothing yet, as the list has it; false where it is no such run. */
function drawStarting() {
  const item = list?.runs.find(({ name, beat }) => name === state.run && beat && beat.step < 0 && beat.samples === 0);
  if (!item) return false;
  clearRun();
  waiting = true;
  drawVerdict(containers.verdict, { digest: item, findings: [] }, choose);
  say("No sample yet", "The charts appear with the first sampled step.");
  return true;
}

function drawFacts() {
  if (!session?.digest) return;
  drawStatus(containers.status, session, { following: following(), lost, resume: fit });
  drawVerdict(containers.verdict, session, choose);
  document.title = `${session.run} · stabmon`;
}

function drawSide() {
  if (!session?.digest) return;
  const act = { choose, zoom: zoomTo, redraw: drawSide, openRule: openRules };
  drawFindings(containers.findings, { digest: session.digest, findings: session.findings, failures: session.failures, chosen: state.finding, rules, unfolded }, act);
}

/** Draw live points, which come faster than anyone reads them, once a second. */
function redrawSoon() {
  later ??= setTimeout(() => [(later = null), redraw()], 1000);
}

/** Draw again at the next frame. */
function redraw() {
  if (frame) return;
  frame = requestAnimationFrame(async () => {
    frame = 0;
    await drawCharts();
  });
}

async function drawCharts() {
  if (!session || !charts) return;
  try {
    if (!(await charts.show(session, others, state))) return;
    containers.panels.classList.remove("loading");
    followNow();
    const waiting = session.detail.heartbeat.step < 0;
    say(waiting ? "No sample yet" : "", waiting ? "The charts appear with the first sampled step." : "");
    pin();
  } catch (error) {
    fail(error);
  }
}

function pin() {
  const { step } = state;
  containers.panels.dataset.drawn = location.search;
  if (step !== null) return showCursor(step, { pinned: true });
  if (!currentCursor() || currentCursor().pinned) showCursor(null);
}

const chartActs = {
  change: (patch) => change(patch),
  compare,
  explain: (info) => info && showWord(info),
  openLayer: (layer) => change({ layer }),
  zoom: (range) => change(range ? whole(range) : { from: null, to: null }),
  leave: () => (state.step === null ? showCursor(null) : showCursor(state.step, { pinned: true })),
  hover: (step, row, source) => {
    const at = snap(step);
    if (state.step !== null) showCursor(state.step, { pinned: true, source, row });
    else if (at !== null) showCursor(at, { source, row });
  },
  click: (step, row, source) => {
    const column = source === charts.heat && !charts.layer ? charts.data.heat.columns[row] : null;
    const layer = column && charts.canOpen(column.layer) ? { layer: column.layer } : {};
    change({ step: snap(step), ...layer });
  },
};

/** A range in whole steps, at least one wide. */
function whole([first, last]) {
  const from = Math.round(first);
  return { from, to: Math.max(Math.round(last), from + 1) };
}

function snap(step) {
  const { steps } = charts;
  const index = nearest(steps, step);
  return index < 0 ? null : steps[index];
}

const fit = () => change({ from: null, to: null });

function choose(finding) {
  if (!finding) return change({ finding: null });
  const layered = session.metric(finding.metric)?.place !== "run" && session.metric(finding.metric);
  const { from, to } = state;
  const hidden = from !== null && (finding.opened < from || finding.opened > to);
  change({
    finding: keyOf(finding),
    step: finding.opened,
    ...(layered ? { metric: finding.metric, layer: null } : {}),
    ...(hidden ? { from: null, to: null } : {}),
  });
  containers.findings.querySelector(".detail")?.scrollIntoView({ block: "nearest" });
}

function zoomTo(finding) {
  const end = finding.cleared ?? session.detail.heartbeat.step;
  const edge = Math.max(5, Math.round((end - finding.opened) * 0.15));
  change({ from: Math.max(finding.opened - edge, 0), to: end + edge, step: finding.opened });
}

function walkFindings(by) {
  const order = session?.digest ? inOrder(session) : [];
  if (!order.length) return;
  const at = order.findIndex((finding) => keyOf(finding) === state.finding);
  choose(order[at < 0 ? (by > 0 ? 0 : order.length - 1) : Math.min(Math.max(at + by, 0), order.length - 1)]);
}

function walkSteps(by) {
  if (!charts?.steps.length) return;
  const { steps } = charts;
  const at = state.step === null ? (by < 0 ? steps.length : -1) : nearest(steps, state.step);
  change({ step: steps[Math.min(Math.max(at + by, 0), steps.length - 1)] });
}

/** The theme is kept in this browser, and in the address for who is sent it. */
function flipTheme() {
  const theme = isDark() ? "light" : "dark";
  localStorage.setItem("theme", theme);
  change({ theme });
}

function setTheme() {
  const theme = state.theme ?? localStorage.getItem("theme");
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  redraw();
}

/** Go to the search of the table of runs. */
function search() {
  if (state.run) home();
  containers.home.querySelector(".search")?.focus();
}

const letGo = () => change(state.step === null ? { finding: null } : { step: null });
const about = () => session?.detail && showRun(session, charts?.steps ?? []);

async function openRun(name) {
  clearRun();
  document.body.classList.add("has-run");
  containers.panels.classList.add("loading");
  const opening = new Session(name, {
    points: redrawSoon,
    status: drawFacts,
    findings: () => [drawFacts(), drawSide(), redraw()],
    lost: () => [(lost = true), drawFacts()],
    back: () => [(lost = false), drawFacts()],
    gone: (message) => fail(new ApiError(message, 410)),
  });
  session = opening;
  lost = false;
  try {
    await opening.open();
    if (session !== opening) return;
    charts = new Charts(containers.panels, chartActs);
    drawList();
    drawFacts();
    drawSide();
    await openOthers();
    await drawCharts();
  } catch (error) {
    if (session === opening) fail(error);
  }
}

/** Follow what is drawn, while anyone can see it. */
function followNow() {
  if (session && charts?.session && !document.hidden) session.follow(charts.selections());
}

async function openOthers() {
  const wanted = state.with.filter((name) => name !== session?.run);
  others.filter((one) => !wanted.includes(one.run)).forEach((one) => one.close());
  const opened = await Promise.all(
    wanted.map((name) => others.find((one) => one.run === name) ?? new Session(name).open().catch(() => null)),
  );
  others = opened.filter(Boolean);
}

/** Look at the run list again, read runs that are laid over and still grow, and go on with a run that goes on. */
async function refresh() {
  if (document.hidden) return;
  try {
    list = await listRuns();
    drawList();
    if (state.run) await goOn(list.runs.find(({ name }) => name === state.run));
    const growing = others.filter((one) => !one.still);
    await Promise.all(growing.map((one) => [one.kept.clear(), one.open()][1]));
    if (growing.length) redraw();
    if (list.runs.some((run) => run.pending)) setTimeout(refresh, 500);
  } catch (error) {
    if (!list) fail(error);
  }
}

/** Take the state of the shown run from the list, where its stream is closed and the state has changed. */
async function goOn(item) {
  if (!item?.beat) return;
  if (!session) {
    if (!drawStarting() && waiting) await openRun(state.run);
  } else if (session.still && item.beat.state !== session.state) {
    await session.open();
    drawFacts();
    drawSide();
    await drawCharts();
  }
}

async function start() {
  say("");
  if (state.run) {
    const name = state.run;
    await Promise.all([refresh(), openRun(name)]);
    return;
  }
  clearRun();
  await refresh();
}

onChange(async (now, before) => {
  if (now.theme !== before.theme) setTheme();
  if (now.run !== before.run || Boolean(now.rules) !== Boolean(before.rules)) {
    containers.home.replaceChildren();
    await start();
    return;
  }
  if (!now.run) return drawList();
  if (!session || !charts) return;
  drawFacts();
  if (now.finding !== before.finding) drawSide();
  if (String(now.with) !== String(before.with)) {
    drawList();
    await openOthers();
  }
  const only = ["step"].every((key) => now[key] !== before[key]) && same(now, before, ["metric", "layer", "finding", "with", "from", "to", "y", "view", "compare"]);
  if (only) return pin();
  if (now.from !== null && now.to !== null) showRange([now.from, now.to]);
  await drawCharts();
});

const same = (now, before, keys) => keys.every((key) => String(now[key]) === String(before[key]));

containers.tools.append(
  h("button.link.small", { type: "button", title: "What is flagged, and the words (r)", onclick: () => openRules() }, "Rules"),
  iconButton("details", "About this run and stabmon (i)", about, { class: "quiet of-run" }),
  iconButton("theme", "Light or dark (t)", flipTheme),
  iconButton("help", "Keys (?)", showKeys),
);
listen({ j: () => walkFindings(1), k: () => walkFindings(-1), "[": () => walkSteps(-1), "]": () => walkSteps(1), f: fit, t: flipTheme, i: about, h: home, r: () => openRules(), "/": search, "?": showKeys, Escape: letGo });
onSystemTheme(redraw);
byId("brand").addEventListener("click", (event) => {
  if (event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  home();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return session?.leave();
  followNow();
  return refresh();
});
setInterval(refresh, EVERY);
setInterval(drawFacts, 1000);
listRules().then((found) => {
  rules = new Map(found.map((rule) => [rule.code, rule]));
  drawSide();
}, () => null);
start();
