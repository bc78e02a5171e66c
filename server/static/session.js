// One opened run: what it is, its findings and their digest, the series that were read so far, and its live stream.
import { describeRun, listFailures, listFindings, readDigest, readSeries } from "./api.js";
import { follow } from "./follow.js";
import { append } from "./packed.js";

/** What the page was sent with about a run; once, since it ages. */
function takeFirst(run) {
  const block = document.getElementById("first");
  block?.remove();
  const first = block ? JSON.parse(block.textContent) : null;
  return first?.name === run ? first : null;
}

/** States that a run leaves only when it is resumed; its stream is closed, and the list of runs says when it goes on. */
const STILL = new Set(["finished", "failed", "crashed", "stale"]);
/** Live points that a series may grow by before it is read again in buckets. */
const GROWTH = 2000;

export class Session {
  /** handlers: {points(), status(), findings(), lost(), back(), gone(message)}. */
  constructor(run, handlers = {}) {
    this.run = run;
    this.handlers = handlers;
    this.kept = new Map();
    this.abort = new AbortController();
    /** Overheads that were seen, one for each time that it changed, the last ten. */
    this.overheads = [];
  }

  async open() {
    const { detail, findings, digest, failures, now } = takeFirst(this.run) ?? (await this.ask());
    Object.assign(this, { detail, findings, digest, failures });
    this.note(detail.heartbeat);
    this.beatAt = performance.now() - 1000 * Math.max(0, now - detail.heartbeat.time);
    return this;
  }

  async ask() {
    const { signal } = this.abort;
    const reading = [describeRun, listFindings, readDigest, listFailures].map((read) => read(this.run, signal));
    const [{ body, now }, findings, digest, failures] = await Promise.all(reading);
    return { detail: body, now, findings, digest, failures };
  }

  get state() {
    return this.detail.heartbeat.state;
  }

  get still() {
    return STILL.has(this.state);
  }

  /** Seconds since the last heartbeat, as counted here: no clock of another machine is trusted. */
  get age() {
    return Math.max(0, (performance.now() - this.beatAt) / 1000);
  }

  metric(name) {
    return this.detail.metrics.find((metric) => metric.name === name);
  }

  /** Read a metric whole, or in more detail within a range where the whole had to be put into buckets. */
  async read(kind, metric, layer, range = null) {
    if (!this.metric(metric)) return null;
    const key = `${kind} ${layer ? `${metric}@${layer}` : metric}`;
    const { signal } = this.abort;
    if (!this.kept.has(key)) this.kept.set(key, readSeries(this.run, kind, { metric, layer }, signal));
    const reading = this.kept.get(key);
    const whole = await Promise.resolve(reading).catch((error) => {
      if (this.kept.get(key) === reading) this.kept.delete(key);
      throw error;
    });
    if (this.kept.get(key) === reading) this.kept.set(key, whole);
    if (!range || this.detail.sampled <= GROWTH) return this.kept.get(key) ?? whole;
    return readSeries(this.run, kind, { metric, layer, range }, signal);
  }

  /** Follow these selections ("loss", "row_mass@layers.2") from where what was read ends, unless that is done already; drop what is not followed. */
  follow(selections) {
    if (this.still) return this.leave();
    const names = selections.filter((name) => this.metric(name.split("@")[0]));
    if (this.stop && names.join() === this.followed.join()) return null;
    this.leave();
    this.followed = names;
    for (const key of this.kept.keys()) if (!names.includes(key.split(" ")[1])) this.kept.delete(key);
    const cursors = [...this.kept.values()].map((series) => series.cursor ?? 0);
    const cursor = cursors.length ? Math.min(...cursors) : this.detail.sampled;
    this.stop = follow(this.run, names, cursor, {
      points: (found, after) => this.take(found, after),
      status: ({ heartbeat, age }) => this.beat(heartbeat, age),
      findings: (found) => this.adopt("findings", found),
      digest: (found) => this.adopt("digest", found),
      failures: (found) => this.adopt("failures", found),
      end: () => this.leave(),
      gone: ({ detail }) => this.handlers.gone?.(detail),
      lost: () => this.handlers.lost?.(),
      back: () => this.handlers.back?.(),
    });
    return this.stop;
  }

  note({ overhead }) {
    if (overhead !== null && overhead !== this.overheads.at(-1)) this.overheads = [...this.overheads, overhead].slice(-10);
  }

  beat(heartbeat, age) {
    this.note(heartbeat);
    this.detail = { ...this.detail, heartbeat, sampled: heartbeat.samples };
    this.beatAt = performance.now() - 1000 * age;
    if (this.still) this.leave();
    this.handlers.status?.();
  }

  /** Close the stream; what was read stays. */
  leave() {
    this.stop?.();
    this.stop = null;
  }

  /** Take the findings, their digest or the failures, where they changed. */
  adopt(what, found) {
    if (JSON.stringify(found) === JSON.stringify(this[what])) return;
    this[what] = found;
    this.handlers.findings?.();
  }

  take(found, cursor) {
    let large = false;
    for (const [key, series] of this.kept) {
      const more = found.get(key.split(" ")[1]);
      if (!more) continue;
      const grow = (known) => ({ ...append(known, more), cursor, base: known.base ?? known.steps.length });
      const grown = series.steps ? grow(series) : series.then(grow);
      this.kept.set(key, grown);
      large ||= grown.steps?.length > grown.base + GROWTH;
    }
    if (large) this.kept.clear();
    this.handlers.points?.();
  }

  close() {
    this.leave();
    this.abort.abort();
  }
}
