// The bar and the verdict: is it healthy, where, since when.
import { h, icon } from "./dom.js";
import { stateChip } from "./runs.js";
import { age, plural, span, words } from "./text.js";

/** Draw the bar's facts about a session. live: {following, lost, resume()}. */
export function drawStatus(place, session, live) {
  const { heartbeat } = session.detail;
  const fact = (label, value, title) => h("span.fact", { title }, h("span.label", {}, label), h("span.value", {}, value));
  const overhead = heartbeat.overhead === null ? "–" : `${(100 * heartbeat.overhead).toFixed(heartbeat.overhead < 0.1 ? 2 : 0)} %`;
  const parts = [
    h("span.title", {}, session.run),
    stateChip(heartbeat.state),
    fact("step", heartbeat.step < 0 ? "none yet" : String(heartbeat.step), "Latest sampled step"),
    fact("overhead", overhead, "Time that stabmon took on the training thread"),
    fact("dropped", String(heartbeat.dropped), "Samples lost because the queue was full or the disk refused them"),
    fact("updated", age(session.age), "Last heartbeat of the training"),
  ];
  if (!session.ended) parts.push(follower(live));
  replaceIfChanged(place, parts);
}

/** Replace only what changed: a button that is being used must not vanish every second. */
function replaceIfChanged(place, parts) {
  const next = h("div", {}, parts);
  if (next.innerHTML !== place.innerHTML) place.replaceChildren(...next.childNodes);
}

function follower({ following, lost, resume }) {
  if (lost) return h("span.chip.state-stale", { title: "The stream broke; it comes back by itself" }, icon("stale"), "reconnecting");
  if (following) return h("span.chip.following", { title: "New steps appear by themselves" }, h("i.pulse"), "live");
  return h("button.chip.paused", { type: "button", onclick: resume, title: "Show all steps and follow new ones (f)" }, icon("fit"), "paused: follow");
}

/** What the findings come to: {level, title, text, finding}. */
export function judge(session) {
  const { findings, detail } = session;
  const { step, state } = detail.heartbeat;
  const open = findings.filter((finding) => finding.cleared === null && finding.severity !== "info");
  const past = findings.filter((finding) => finding.cleared !== null && finding.severity !== "info");
  const ended = state === "failed" ? " The run failed." : state === "stale" ? " No heartbeat: the training has stopped or hangs." : "";
  if (open.length) {
    const [first] = open;
    const alike = open.filter((finding) => finding.code === first.code);
    const layers = alike.map((finding) => finding.layer).filter(Boolean);
    const since = Math.min(...alike.map((finding) => finding.opened));
    const more = open.length - alike.length;
    return {
      level: first.severity,
      title: `${first.severity === "error" ? "Unhealthy" : "At risk"} since step ${since}`,
      text: `${words(first.name)}${layers.length ? ` in ${span(layers)}` : ""}${more ? `, and ${plural(more, "more finding")}` : ""}.${ended}`,
      finding: first,
    };
  }
  if (step < 0) return { level: "info", title: "Waiting for the first step", text: `Nothing was sampled yet.${ended}` };
  const watched = plural(detail.info.model.attentions.length, "attention layer");
  if (past.length) {
    const last = Math.max(...past.map((finding) => finding.cleared));
    return { level: "recovered", title: `Healthy since step ${last}`, text: `${plural(past.length, "finding")} cleared.${ended}`, finding: past[0] };
  }
  return { level: state === "failed" ? "error" : "healthy", title: state === "failed" ? "The run failed" : "Healthy", text: `No finding in ${watched} up to step ${step}.${state === "stale" ? ended : ""}` };
}

const ICONS = { error: "error", warning: "warning", info: "info", healthy: "finished", recovered: "finished" };

export function drawVerdict(place, session, choose) {
  const { level, title, text, finding } = judge(session);
  place.className = `verdict ${level}`;
  const more = finding ? h("button.link", { type: "button", onclick: () => choose(finding) }, "Show why") : null;
  replaceIfChanged(place, [icon(ICONS[level]), h("h1", {}, title), h("p", {}, text), more].filter(Boolean));
}
