// What differs between runs: their settings, their findings, and the step from which on their numbers part.
import { isMissing, lowerBound, MISSING_BITS } from "./packed.js";
import { number } from "./text.js";

/** A configuration as one level: {"model.bias": "0"}; values as people write them. */
export function flat(value, path = "") {
  if (value === null || typeof value !== "object") return { [path]: said(value) };
  if (Array.isArray(value)) return { [path]: value.map(said).join(", ") };
  return Object.assign({}, ...Object.entries(value).map(([key, inner]) => flat(inner, path ? `${path}.${key}` : key)));
}

const said = (value) => (value === null ? "none" : typeof value === "number" ? number(value, 4) : typeof value === "object" ? JSON.stringify(value) : String(value));

const ATTENTION = ["kind", "bias", "qk_norm", "hybrid_norm", "layer_scale", "position", "heads", "head_dim", "max_length"];
/** Settings that differ in every run and say nothing. */
const UNSAID = new Set(["name", "dir"]);

/** What a run was started with: its attention as it was found, its configuration, its versions. */
function settings({ info }) {
  const attentions = info.model.attentions;
  const found = ATTENTION.map((key) => [`attention ${key.replaceAll("_", " ")}`, [...new Set(attentions.map((one) => said(one[key] ?? null)))].join(", ")]);
  return { ...Object.fromEntries(found), layers: String(attentions.length), parameters: said(info.model.parameters), ...flat(info.config), ...flat(info.versions, "version") };
}

/** Rows [setting, value of each run] in which the runs differ. */
export function settingsThatDiffer(details) {
  const own = details.map(settings);
  const keys = [...new Set(own.flatMap(Object.keys))].filter((key) => key && !UNSAID.has(key.split(".").at(-1)));
  const rows = keys.map((key) => [key, own.map((one) => one[key] ?? "–")]);
  return rows.filter(([, values]) => new Set(values).size > 1);
}

/** Rows {code, title, cells: entry or null of each run}, the rules that anything flagged. */
export function findingsSideBySide(digests) {
  const entries = digests.map(({ entries: own }) => own.flatMap((entry) => [entry, ...entry.symptoms]));
  const codes = [...new Map(entries.flat().map(({ code, title }) => [code, title]))];
  return codes.map(([code, title]) => ({ code, title, cells: entries.map((own) => own.find((entry) => entry.code === code) ?? null) }));
}

/** Samples in a row that must differ, so that a single spike is no parting. */
const LASTING = 3;

/** The first step from which on two columns differ by more than a share for LASTING samples that both have; null where they never do. */
export function parting(one, other, share) {
  let since = null;
  let count = 0;
  for (let index = 0; index < one.steps.length; index += 1) {
    const at = lowerBound(other.steps, one.steps[index]);
    if (other.steps[at] !== one.steps[index]) continue;
    const [a, b] = [one.values[index], other.values[at]];
    if (isMissing(one.values, index) || isMissing(other.values, at)) continue;
    const same = Object.is(a, b) || Math.abs(a - b) <= share * Math.max(Math.abs(a), Math.abs(b));
    if (same) [since, count] = [null, 0];
    else if (count === 0) [since, count] = [one.steps[index], 1];
    else count += 1;
    if (count === LASTING) return since;
  }
  return null;
}

/** The earliest parting over the columns that two series share, with its layer: {step, layer} or null. */
export function firstParting(one, other, share) {
  const pairs = one.columns.map((column, index) => [column, other.columns.find(({ layer, head }) => layer === column.layer && head === column.head) ?? (one.columns.length === other.columns.length ? other.columns[index] : null)]);
  const found = pairs
    .filter(([, match]) => match)
    .map(([column, match]) => ({ layer: column.layer, step: parting({ steps: one.steps, values: column.values }, { steps: other.steps, values: match.values }, share) }))
    .filter(({ step }) => step !== null);
  return found.reduce((best, next) => (best === null || next.step < best.step ? next : best), null);
}

/** One series over another, cell by cell, at the steps of the first; a step the other lacks takes its last one before it. */
export function over(series, other) {
  const columns = series.columns.map((column, index) => {
    const match = other.columns.find(({ layer, head }) => layer === column.layer && head === column.head) ?? other.columns[index];
    const values = new Float32Array(series.steps.length);
    new Uint32Array(values.buffer).fill(MISSING_BITS);
    if (!match) return { ...column, values, low: null, high: null };
    series.steps.forEach((step, at) => {
      const there = lowerBound(other.steps, step + 0.5) - 1;
      if (there < 0 || step > other.steps.at(-1) || isMissing(column.values, at) || isMissing(match.values, there)) return;
      values[at] = column.values[at] / match.values[there];
    });
    return { ...column, values, low: null, high: null };
  });
  return { ...series, columns };
}
