// One event stream for all that is followed. Browsers allow six connections to a server, so that a stream a tab would lock the seventh out.

const LIVE = "/api/v1/live";
/** Milliseconds without a sign of life after which a follower is forgotten: its tab was closed or frozen. */
const SILENT = 20_000;
const RETRY = 1000;
const KINDS = ["points", "status", "findings", "digest", "failures", "end", "gone"];

/** Keeps one stream for its followers, each {id, run, series, cursor, send(message)}. */
export class Hub {
  constructor() {
    this.followers = new Map();
    this.source = null;
    setInterval(() => this.sweep(), SILENT / 4);
  }

  /** Take a message of a page: {act: "follow", id, run, series, cursor}, {act: "leave", id} or {act: "here", id}. */
  take({ act, id, ...wanted }, send) {
    const known = this.followers.get(id);
    if (act === "here") {
      if (known) known.seen = Date.now();
      return;
    }
    if (act === "leave" && !this.followers.delete(id)) return;
    if (act === "follow") this.followers.set(id, { ...wanted, id, send, seen: Date.now() });
    this.soon();
  }

  sweep() {
    const silent = [...this.followers.values()].filter(({ seen }) => Date.now() - seen > SILENT);
    silent.forEach(({ id }) => this.followers.delete(id));
    if (silent.length) this.soon();
  }

  soon(after = 20) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), after);
  }

  /** Open the stream anew, for those who follow now, each from where it is. */
  open() {
    this.source?.close();
    this.source = null;
    const followers = [...this.followers.values()];
    if (!followers.length) return;
    const query = new URLSearchParams();
    for (const { run, cursor, series } of followers) query.append("follow", [run, cursor, series.join()].join("/"));
    const source = new EventSource(`${LIVE}?${query}`);
    this.source = source;
    for (const kind of KINDS) {
      source.addEventListener(kind, (event) => {
        const { follow, cursor, data } = JSON.parse(event.data);
        const one = followers[follow];
        if (this.followers.get(one.id) !== one) return;
        one.cursor = cursor;
        one.send({ id: one.id, kind, data, cursor });
        if (kind === "end" || kind === "gone") this.followers.delete(one.id);
      });
    }
    source.addEventListener("open", () => this.tell("back"));
    source.addEventListener("error", () => {
      if (this.source !== source) return;
      source.close();
      this.source = null;
      if (!this.followers.size) return;
      this.tell("lost");
      this.soon(RETRY);
    });
  }

  tell(kind) {
    for (const { id, send } of this.followers.values()) send({ id, kind });
  }
}
