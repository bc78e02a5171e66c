// Numbers, ages and names as people read them.

/** Four significant digits; what is not a number is named. */
export function number(value, missing = false) {
  if (missing) return "–";
  if (typeof value === "string") return value.replace("Infinity", "Inf").replace("-", "−");
  if (Number.isNaN(value)) return "NaN";
  if (value === Infinity) return "+Inf";
  if (value === -Infinity) return "−Inf";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-3 ? value.toExponential(2).replace("e+", "e") : String(Number(value.toPrecision(4)));
  return text.replaceAll("-", "−");
}

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

/** A name that fits a narrow axis: its end tells layers apart, so the beginning goes. */
export const shortened = (name, length = 11) => (name.length > length ? `…${name.slice(1 - length)}` : name);

/** Names without the path they share, but for its last part: model.decoder.layers.3 is layers.3. */
export function labels(names) {
  const split = names.map((name) => name.split("."));
  let shared = 0;
  while (split.every((parts) => parts.length > shared + 1 && parts[shared] === split[0][shared])) shared += 1;
  return split.map((parts) => parts.slice(Math.max(shared - 1, 0)).join("."));
}

/** Layers as a range where they follow one another: "layers.0 to layers.3". */
export function span(names) {
  if (names.length < 3) return names.join(" and ");
  const numbers = names.map((name) => Number(name.match(/(\d+)(?!.*\d)/)?.[1] ?? NaN));
  const follow = numbers.every((value, index) => index === 0 || value === numbers[index - 1] + 1);
  return follow ? `${names[0]} to ${names[names.length - 1]}` : `${plural(names.length, "layer")}, first ${names[0]}`;
}

/** Sort layers.2 before layers.10. */
export const natural = new Intl.Collator("en", { numeric: true }).compare;

const UNITS = { 1: "", "as logged": "" };
export const unit = (text) => UNITS[text] ?? text;
