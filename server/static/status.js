// The bar and the verdict: is it healthy, where, since when.
import { h, icon } from "./dom.js";
import { keyOf } from "./findings.js";
import { stateChip } from "./runs.js";
import { age } from "./text.js";

/** Draw the bar's facts about a session. live: {following, lost, resume()}. */
export function drawStatus(container, session, live) {
  const { heartbeat } = session.detail;
  const fact = (label, value, title) => h("span.fact", { title }, h("span.label", {}, label), h("span.value", {}, value));
  const overhead = heartbeat.overhead === null ? "–" : `${(100 * heartbeat.overhead).toFixed(heartbeat.overhead < 0.1 ? 2 : 0)} %`;
  const parts = [
    h("span.title", {}, session.run),
    stateChip(heartbeat),
    fact("step", heartbeat.step < 0 ? "none yet" : String(heartbeat.step), "Latest sampled step"),
    fact("overhead", overhead, "Time that stabmon took on the training thread"),
    fact("updated", age(session.age), "Last heartbeat of the training"),
  ];
  if (!session.ended && heartbeat.state !== "crashed") parts.push(follower(live));
  replaceIfChanged(container, parts);
}

/** Replace only what changed: a button that is being used must not vanish every second. */
function replaceIfChanged(container, parts) {
  const next = h("div", {}, parts);
  if (next.innerHTML !== container.innerHTML) container.replaceChildren(...next.childNodes);
}

function follower({ following, lost, resume }) {
  if (lost) return h("span.chip.state-stale", { title: "The stream broke; it comes back by itself" }, icon("stale"), "reconnecting");
  if (following) return h("span.chip.following", { title: "New steps appear by themselves" }, h("i.pulse"), "live");
  return h("button.chip.paused", { type: "button", onclick: resume, title: "Show all steps and follow new ones (f)" }, icon("fit"), "paused: follow");
}

const ICONS = { error: "error", warning: "warning", info: "info", healthy: "finished", recovered: "finished" };

export function drawVerdict(container, session, choose) {
  const { level, title, text, key } = session.digest.health;
  container.className = `verdict ${level}`;
  const finding = session.findings.find((one) => keyOf(one) === key);
  const more = finding ? h("button.link", { type: "button", onclick: () => choose(finding) }, "Show why") : null;
  replaceIfChanged(container, [icon(ICONS[level]), h("h1", {}, title), h("p", {}, text), more].filter(Boolean));
}
