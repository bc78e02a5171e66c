// Colours: tokens of the theme, colour maps that colour-blind people can read, and which map a metric gets.
import { extent } from "./packed.js";
import { number, ratio } from "./text.js";
import { logTicks, tickText } from "./ticks.js";

const CIVIDIS = ["#00224e", "#1d3a6f", "#434e6c", "#61656f", "#7d7c78", "#9b9476", "#bbad6c", "#ddc758", "#fee838"];
const BELOW = ["#0d3c6e", "#2467a8", "#5b9bc9", "#a9cfe4"];
const ABOVE = ["#f5c3a2", "#e2875c", "#bf4632", "#7d1526"];
/** Lines of layers by depth, each at 3:1 or more on the surface of its theme. */
const DEPTH = {
  light: ["#14225c", "#4a2f8f", "#8a3391", "#b83a68", "#c4562a", "#a8780f"],
  dark: ["#6f8cf0", "#a98af0", "#dd86d8", "#ff8f8f", "#ffb060", "#f3dc6a"],
};
const RUNS = { light: ["#1d1f21", "#0072b2", "#d55e00", "#007a5a", "#a0569b", "#8a6d00"], dark: ["#ecebe7", "#56b4e9", "#f0914a", "#2fc79c", "#d491c6", "#e0c040"] };
export const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "dot"];

const asked = matchMedia("(prefers-color-scheme: dark)");
export const isDark = () => (document.documentElement.dataset.theme ?? (asked.matches ? "dark" : "light")) === "dark";
export const onSystemTheme = (listener) => asked.addEventListener("change", listener);
export const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
export const runColour = (index) => RUNS[isDark() ? "dark" : "light"][index % 6];

const rgb = (hex) => [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));

/** The red, green and blue at 0..1 of a list of colours. */
function channels(list, position) {
  const at = Math.min(Math.max(position, 0), 1) * (list.length - 1);
  const index = Math.min(Math.floor(at), list.length - 2);
  const [first, second] = [rgb(list[index]), rgb(list[index + 1])];
  return first.map((part, channel) => Math.round(part + (second[channel] - part) * (at - index)));
}

const mix = (list, position) => `rgb(${channels(list, position).join()})`;

/** One colour a layer, by depth. */
export const depthColour = (index, count) => mix(DEPTH[isDark() ? "dark" : "light"], count < 2 ? 0 : index / (count - 1));

/** The colours of a scale [[0..1, colour]] as 256 pixels. */
export function shadesOf(colours) {
  const list = colours.map(([, colour]) => colour);
  const shades = new Uint8ClampedArray(4 * 256);
  for (let index = 0; index < 256; index += 1) shades.set([...channels(list, index / 255), 255], 4 * index);
  return new Uint32Array(shades.buffer);
}

const scaleOf = (list) => list.map((colour, index) => [index / (list.length - 1), colour]);

/** The colour scale of a metric's heatmaps, one for all: kind, position(value) on the axis of colours, far(position) from neutral and the least of that (near), its ends, ticks and colours. */
export function scaleFor(info, all) {
  const spans = all.map((series) => extent(series.columns, series.steps)).filter(Boolean);
  const [low, high] = spans.length ? [Math.min(...spans.map(([least]) => least)), Math.max(...spans.map(([, most]) => most))] : [0, 1];
  if (info.healthy && low > 0) return aroundHealthy(info.healthy, low, high);
  if (low > 0) return logarithmic(low, high);
  return low < 0 && high > 0 ? aroundZero(Math.max(-low, high)) : linear(low, high);
}

const same = (value) => value;

function aroundHealthy(healthy, low, high) {
  const reach = Math.max(Math.abs(Math.log2(low / healthy)), Math.abs(Math.log2(high / healthy)), 1);
  const step = Math.max(1, Math.ceil(reach / 3));
  const ticks = [];
  for (let power = -step * Math.floor(reach / step); power <= reach; power += step) ticks.push(power);
  return {
    kind: `ratio to the healthy value ${number(healthy)}`,
    position: (value) => Math.log2(value / healthy),
    far: Math.abs,
    near: 0,
    ends: [-reach, reach],
    ticks,
    labels: ticks.map((power) => `${ratio(2 ** power)}×`),
    colours: scaleOf([...BELOW, isDark() ? "#33363a" : "#f4f2ee", ...ABOVE]),
  };
}

function logarithmic(low, high) {
  const top = Math.max(high, low * 1.25);
  const ticks = logTicks(low, top);
  const ends = [Math.log10(low), Math.log10(top)];
  return { kind: "log scale", position: Math.log10, far: same, near: ends[0], ends, ticks, labels: ticks.map(tickText), colours: scaleOf(CIVIDIS) };
}

function linear(low, high) {
  const ends = high > low ? [low, high] : [low, low + 1];
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => ends[0] + part * (ends[1] - ends[0]));
  const labels = ticks.map((tick) => number(Number(tick.toPrecision(3))));
  return { kind: "linear scale", position: same, far: same, near: ends[0], ends, ticks, labels, colours: scaleOf(CIVIDIS) };
}

function aroundZero(reach) {
  const ticks = [-reach, -reach / 2, 0, reach / 2, reach];
  return {
    kind: "linear scale around 0",
    position: same,
    far: Math.abs,
    near: 0,
    ends: [-reach, reach],
    ticks,
    labels: ticks.map((tick) => number(Number(tick.toPrecision(2)))),
    colours: scaleOf([...BELOW, isDark() ? "#33363a" : "#f4f2ee", ...ABOVE]),
  };
}
