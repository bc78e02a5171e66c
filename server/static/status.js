// The bar and the verdict: is it healthy, where, since when; and what became of its process.
import { h, icon, patch } from "./dom.js";
import { keyOf } from "./findings.js";
import { stateChip } from "./runs.js";
import { TOO_MUCH } from "./dialogs.js";
import { age } from "./text.js";

/** Draw the bar's facts about a session. live: {following, lost, resume()}. */
export function drawStatus(container, session, live) {
  const { heartbeat } = session.detail;
  const fact = (label, value, title, warns = false) => h(`span.fact${warns ? ".warns" : ""}`, { title }, h("span.label", {}, label), h("span.value", {}, value));
  const overhead = heartbeat.overhead === null ? "–" : `${(100 * heartbeat.overhead).toFixed(heartbeat.overhead < 0.1 ? 2 : 0)} %`;
  patch(
    container,
    h("span.title", {}, session.run),
    stateChip(heartbeat),
    fact("step", heartbeat.step < 0 ? "none yet" : String(heartbeat.step), "Latest sampled step"),
    fact("overhead", overhead, "Time that stabmon took on the training thread", heartbeat.overhead > TOO_MUCH),
    fact("updated", age(session.age), "Last heartbeat of the training"),
    follower(session, live),
  );
}

function follower(session, { following, lost, resume }) {
  const back = (text, title) => h("button.chip.paused", { type: "button", onclick: resume, title }, icon("fit"), text);
  if (session.still) return following ? null : back("show all steps", "Show all steps (f)");
  if (lost) return h("span.chip.state-stale", { title: "The stream broke; it comes back by itself" }, icon("stale"), "reconnecting");
  if (following) return h("span.chip.following", { title: "New steps appear by themselves" }, h("i.pulse"), "live");
  return back("paused: follow", "Show all steps and follow new ones (f)");
}

export const ICONS = { error: "error", warning: "warning", info: "info", healthy: "finished", recovered: "finished" };
const LEVELS = ["error", "warning", "info", "recovered", "healthy"];
export const worst = (...levels) => levels.reduce((one, other) => (LEVELS.indexOf(one) <= LEVELS.indexOf(other) ? one : other));

/** Draw both answers: the health, as the findings have it, and the process. The worse of the two colours the whole. */
export function drawVerdict(container, session, choose) {
  const { health, process } = session.digest;
  container.className = `verdict ${worst(health.level, process.level)}`;
  const finding = session.findings.find((one) => keyOf(one) === health.key);
  const why = finding ? h("button.link", { type: "button", onclick: () => choose(finding) }, "Show why") : null;
  patch(
    container,
    h(`div.answer.${health.level}`, {}, icon(ICONS[health.level]), h("h1", {}, health.title), h("p", {}, health.text), why),
    h(`div.answer.process.${process.level}`, {}, icon(process.state), h("b", {}, process.title), h("p", {}, process.text)),
  );
}
