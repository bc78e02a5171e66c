// One opened run: what it is, its findings and their digest, the series that were read so far, and its live stream.
import { describeRun, follow, listFindings, readDigest, readSeries } from "./api.js";
import { append } from "./packed.js";

const ENDED = new Set(["finished", "failed"]);
/** Live points that a series may grow by before it is read again in buckets. */
const GROWTH = 2000;

export class Session {
  /** handlers: {points(), status(), findings(), lost(), back(), gone(message)}. */
  constructor(run, handlers = {}) {
    this.run = run;
    this.handlers = handlers;
    this.kept = new Map();
    this.abort = new AbortController();
  }

  async open() {
    const { signal } = this.abort;
    const reading = [describeRun, listFindings, readDigest].map((read) => read(this.run, signal));
    [this.detail, this.findings, this.digest] = await Promise.all(reading);
    this.beatAt = performance.now() - 1000 * this.detail.age;
    return this;
  }

  get state() {
    return this.detail.heartbeat.state;
  }

  get ended() {
    return ENDED.has(this.state);
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
    if (!range || this.detail.sampled <= 2000) return this.kept.get(key) ?? whole;
    return readSeries(this.run, kind, { metric, layer, range }, signal);
  }

  /** Follow these selections ("loss", "row_mass@layers.2") from where what was read ends; drop what is not followed. */
  follow(selections) {
    this.stop?.();
    this.stop = null;
    if (this.ended) return;
    const names = selections.filter((name) => this.metric(name.split("@")[0]));
    for (const key of this.kept.keys()) if (!names.includes(key.split(" ")[1])) this.kept.delete(key);
    const cursors = [...this.kept.values()].map((series) => series.cursor ?? 0);
    const cursor = cursors.length ? Math.min(...cursors) : this.detail.sampled;
    this.stop = follow(this.run, names, cursor, {
      points: (found) => this.take(found),
      status: ({ heartbeat, age }) => {
        this.detail = { ...this.detail, heartbeat, sampled: heartbeat.samples };
        this.beatAt = performance.now() - 1000 * age;
        this.handlers.status?.();
      },
      findings: (found) => this.adopt("findings", found),
      digest: (found) => this.adopt("digest", found),
      end: () => this.handlers.status?.(),
      gone: ({ detail }) => this.handlers.gone?.(detail),
      lost: () => this.handlers.lost?.(),
      back: () => this.handlers.back?.(),
    });
  }

  /** Take the findings or their digest, where they changed. */
  adopt(what, found) {
    if (JSON.stringify(found) === JSON.stringify(this[what])) return;
    this[what] = found;
    this.handlers.findings?.();
  }

  take(found) {
    let large = false;
    for (const [key, series] of this.kept) {
      const more = found.get(key.split(" ")[1]);
      if (!more || !series.steps) continue;
      const grown = append(series, more);
      this.kept.set(key, { ...grown, base: series.base ?? series.steps.length });
      large ||= grown.steps.length > (series.base ?? series.steps.length) + GROWTH;
    }
    if (large) this.kept.clear();
    this.handlers.points?.();
  }

  close() {
    this.stop?.();
    this.abort.abort();
  }
}
