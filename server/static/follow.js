// Following a run: through the worker that all tabs share, or in this tab where the browser has no such workers.
import { decodeBase64 } from "./packed.js";
import { Hub } from "./stream.js";

const HERE = 5000;
const handlers = new Map();
let post = null;

function deliver({ id, kind, data, cursor }) {
  const own = handlers.get(id);
  if (!own) return;
  if (kind === "points") own.points(new Map(Object.entries(data).map(([name, text]) => [name, decodeBase64(text)])), cursor);
  else own[kind](data);
}

function connect() {
  if (globalThis.SharedWorker) {
    const { port } = new SharedWorker(new URL("./worker.js", import.meta.url), { type: "module", name: "stabmon 1" });
    port.onmessage = ({ data }) => deliver(data);
    return (message) => port.postMessage(message);
  }
  const hub = new Hub();
  return (message) => hub.take(message, deliver);
}

/** Follow a run from a cursor until the returned function is called. own: {points(map of selection to series, cursor after them), status, findings, digest, end, gone, lost, back}. */
export function follow(run, series, cursor, own) {
  post ??= connect();
  const id = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
  handlers.set(id, own);
  post({ act: "follow", id, run, series, cursor });
  return () => handlers.delete(id) && post({ act: "leave", id });
}

setInterval(() => handlers.forEach((_, id) => post({ act: "here", id })), HERE);
addEventListener("pagehide", () => handlers.forEach((_, id) => post({ act: "leave", id })));
