// What is drawn behind and over curves: the healthy band, the limits of the rules, the warm-up, the windows of findings.
import { isDark, token } from "./colours.js";
import { number } from "./text.js";

/** The limits of a metric that are in force: {low, high}, null where there is none. */
export const limitsOf = (info) => ({ low: info?.low ?? null, high: info?.high ?? null });

/** The step at which the learning rate first reached its top, where it rose to it; null without a warm-up. */
export function warmUp(series) {
  if (!series?.steps.length) return null;
  const { values, high } = series.columns[0];
  const rates = high ?? values;
  let top = 0;
  for (let index = 1; index < rates.length; index += 1) if (rates[index] > rates[top] * 1.0001) top = index;
  return top > 1 && values[0] < 0.9 * rates[top] ? series.steps[top] : null;
}

/** Paint the band between two limits; place puts a value on the axis. */
export function paintBand(context, plot, { low, high }, place) {
  if (low === null && high === null) return;
  const { left, top, width, height } = plot.area;
  const at = (value, end) => (value === null || Number.isNaN(place(value)) ? end : Math.min(Math.max(plot.y(place(value)), top), top + height));
  const [above, below] = [at(high, top), at(low, top + height)];
  context.fillStyle = token("good");
  context.globalAlpha = isDark() ? 0.09 : 0.06;
  context.fillRect(left, above, width, Math.max(below - above, 0));
  context.globalAlpha = 1;
}

/** Draw the limits as dashed lines with their numbers; one out of sight as an arrow towards it. */
export function drawLimits(context, plot, { low, high }, place) {
  const { left, top, width, height } = plot.area;
  const bottom = top + height;
  context.font = `10px ${token("font")}`;
  context.strokeStyle = context.fillStyle = token("good");
  context.textAlign = "right";
  const at = (value) => plot.y(place(value));
  const both = low !== null && high !== null;
  const hidden = both && !(at(high) <= bottom) ? low : both && at(low) < top ? high : null; // behind the other one, on the same side
  for (const value of [low, high].filter((limit) => limit !== null && limit !== hidden)) {
    const y = Math.round(plot.y(place(value))) + 0.5;
    const [over, under] = [y < top, !(y <= bottom)];
    if (!over && !under) line(context, left, left + width, y);
    const below = over || y - top < 14;
    context.textBaseline = below ? "top" : "bottom";
    const text = under ? bottom - 1 : over ? top + 2 : below ? y + 2 : y - 1;
    context.lineWidth = 3;
    context.strokeStyle = token("surface");
    context.strokeText(`limit ${number(value)}${over ? " ↑" : under ? " ↓" : ""}`, left + width - 4, text);
    context.strokeStyle = token("good");
    context.fillText(`limit ${number(value)}${over ? " ↑" : under ? " ↓" : ""}`, left + width - 4, text);
  }
}

function line(context, from, to, y) {
  context.lineWidth = 1;
  context.setLineDash([5, 4]);
  context.beginPath();
  context.moveTo(from, y);
  context.lineTo(to, y);
  context.stroke();
  context.setLineDash([]);
}

/** Mark the warm-up of the learning rate: up to this step, by a line and a word. */
export function drawWarmUp(context, plot, step) {
  if (step === null || step === undefined) return;
  const { left, top, width, height } = plot.area;
  const x = Math.round(plot.x(step)) + 0.5;
  if (x <= left || x > left + width) return;
  context.strokeStyle = context.fillStyle = token("muted");
  context.lineWidth = 1;
  context.setLineDash([1, 3]);
  context.beginPath();
  context.moveTo(x, top);
  context.lineTo(x, top + height);
  context.stroke();
  context.setLineDash([]);
  context.font = `10px ${token("font")}`;
  context.textBaseline = "bottom";
  const room = x - left > 52;
  context.textAlign = room ? "right" : "left";
  context.fillText("warm-up", room ? x - 3 : x + 3, top + height - 2);
}

/** Paint the windows of findings: [{from, to, severity, open, chosen}]. One that is open is a line along the top, so that it does not tint all of a chart. */
export function shade(context, plot, windows) {
  const { left, top, width, height } = plot.area;
  for (const { from, to, severity, open, chosen } of windows) {
    const first = Math.max(plot.x(from), left);
    const last = Math.min(Math.max(plot.x(to), first + 1.5), left + width);
    if (last < left || first > left + width) continue;
    context.fillStyle = token(severity);
    context.globalAlpha = chosen ? 0.12 : open ? 0.75 : isDark() ? 0.16 : 0.1;
    context.fillRect(first, top, last - first, open && !chosen ? 2 : height);
    if (open && !chosen) context.fillRect(first, top, 1.5, height);
  }
  context.globalAlpha = 1;
}
