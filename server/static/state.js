// The state that the address holds: everything a link must bring back. Two tabs share nothing.

const KEYS = ["run", "rules", "with", "metric", "layer", "step", "from", "to", "y", "view", "compare", "compare", "finding", "find", "sort", "theme"];
const NUMBERS = new Set(["step", "from", "to"]);
const QUIET = new Set(["theme", "y", "view", "compare", "find", "sort"]);
const listeners = new Set();
let lastPush = { keys: "", time: 0 };

function parse() {
  const query = new URLSearchParams(location.search);
  const found = { with: query.getAll("with") };
  for (const key of KEYS) {
    if (key === "with") continue;
    const text = query.get(key);
    const value = NUMBERS.has(key) && text !== null ? Number(text) : text;
    found[key] = value === "" || Number.isNaN(value) ? null : value;
  }
  return found;
}

function address(state) {
  const query = new URLSearchParams();
  for (const key of KEYS) {
    const value = state[key];
    if (key === "with") value.forEach((name) => query.append("with", name));
    else if (value !== null && value !== undefined) query.set(key, value);
  }
  const text = query.toString();
  return location.pathname + (text ? `?${text}` : "");
}

export let state = parse();

/** Change part of the state; a change of the same keys within a second replaces its history entry instead of adding one. */
export function change(patch, { replace = false } = {}) {
  const before = state;
  const next = { ...state, ...patch };
  if (address(next) === address(before)) return;
  state = next;
  const keys = Object.keys(patch).join();
  const quick = keys === lastPush.keys && performance.now() - lastPush.time < 1000;
  const silent = replace || quick || Object.keys(patch).every((key) => QUIET.has(key));
  if (!silent || quick) lastPush = { keys, time: performance.now() };
  history[silent ? "replaceState" : "pushState"](null, "", address(next));
  notify(before);
}

/** Call listener(state, before) after every change, Back and Forward included. */
export function onChange(listener) {
  listeners.add(listener);
}

function notify(before) {
  listeners.forEach((listener) => listener(state, before));
}

addEventListener("popstate", () => {
  const before = state;
  state = parse();
  lastPush = { keys: "", time: 0 };
  notify(before);
});
