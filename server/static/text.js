// Numbers, ages and names as people read them.

/** A value as `stabmon.formatting.number` writes it; a test holds the two to one table. JSON has NaN and infinities as words. */
export function number(value, digits = 3) {
  if (typeof value === "string" || !Number.isFinite(value)) return String(value).replace("Infinity", "Inf");
  const size = Math.abs(value);
  const sign = value < 0 ? "-" : "";
  if (size === 0) return "0";
  if (size >= 1e6 || size < 1e-4) return sign + size.toExponential(digits - 1).replace(/\.?0*e\+?/, "e");
  return sign + (size >= 10 ** (digits - 1) ? Math.round(size).toLocaleString("en") : String(Number(size.toPrecision(digits))));
}

/** A value that was read off a series: four digits, or a dash where it was not measured. */
export const reading = (value, missing) => (missing ? "–" : number(value, 4));

/** A multiple: 0.125 is ⅛, 8 is 8. */
export function ratio(value) {
  const fractions = { 0.5: "½", 0.25: "¼", 0.125: "⅛" };
  if (fractions[value]) return fractions[value];
  return value < 0.1 ? `1/${Math.round(1 / value)}` : number(value);
}

export function age(seconds) {
  if (seconds < 1.5) return "just now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} d ago`;
}

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

/** attention_norm is "attention norm". */
export const words = (name) => name.replaceAll("_", " ").replaceAll("-", " ");

export function spot({ layer, head }) {
  if (layer === null || layer === undefined) return "run";
  return head === null || head === undefined ? layer : `${layer} · head ${head}`;
}

/** A name that fits a narrow axis: its end distinguishes layers, so the beginning is cut. */
export const shortened = (name, length = 11) => (name.length > length ? `…${name.slice(1 - length)}` : name);

/** Names without the path they share, but for its last part: model.decoder.layers.3 is layers.3. */
export function labels(names) {
  const split = names.map((name) => name.split("."));
  let shared = 0;
  while (split.every((parts) => parts.length > shared + 1 && parts[shared] === split[0][shared])) shared += 1;
  return split.map((parts) => parts.slice(Math.max(shared - 1, 0)).join("."));
}

const UNITS = { 1: "", "as logged": "" };
export const unit = (text) => UNITS[text] ?? text;
