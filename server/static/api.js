// The HTTP API. Every failure becomes an Error whose message can be shown as it is.
import { decode } from "./packed.js";

const ROOT = "/api/v1";

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function get(path, signal) {
  let response;
  try {
    response = await fetch(ROOT + path, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is `stabmon serve` still running?", 0);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new ApiError(body.detail ?? `The server answered ${response.status} to ${path}.`, response.status);
}

const runPath = (run) => `/runs/${encodeURIComponent(run)}`;
const json = async (path, signal) => (await get(path, signal)).json();

/** A body, and the server's time in seconds, against which ages are counted. */
async function dated(path, signal) {
  const response = await get(path, signal);
  return { body: await response.json(), now: Date.parse(response.headers.get("date")) / 1000 };
}

/** The runs of the folder, with the server's time. */
export async function listRuns() {
  const { body, now } = await dated("/runs");
  return { ...body, now };
}

export const describeRun = (run, signal) => dated(runPath(run), signal);
export const listFindings = (run, signal) => json(`${runPath(run)}/findings`, signal);
/** What is missing in a run, and why. */
export const listFailures = (run, signal) => json(`${runPath(run)}/failures`, signal);
/** The digest of the findings: health, counts, entries in order. */
export const readDigest = (run, signal) => json(`${runPath(run)}/digest`, signal);
/** Two to six runs side by side; the first is the one that the others are compared with. */
export const compareRuns = (runs) => json(`/compare?${new URLSearchParams(runs.map((run) => ["run", run]))}`);
export const listRules = () => json("/rules");
export const listWords = () => json("/glossary");
export const plotOf = (code) => `${ROOT}/rules/${code}/plot`;

/** Read a metric; kind is "series" (with bounds) or "heatmap" (one value a cell). */
export async function readSeries(run, kind, { metric, layer = null, range = null }, signal) {
  const query = new URLSearchParams();
  if (layer) query.set("layer", layer);
  if (range) {
    query.set("start", Math.floor(range[0]));
    query.set("stop", Math.ceil(range[1]) + 1);
  }
  const path = `${runPath(run)}/${kind}/${encodeURIComponent(metric)}?${query}`;
  return decode(await (await get(path, signal)).arrayBuffer());
}
