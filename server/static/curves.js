// Curves over steps. Nothing is smoothed and no point is clipped: a bucket of steps is drawn from its lowest to its highest value.
import { h } from "./dom.js";
import { Panel, shades } from "./panel.js";
import { token } from "./colours.js";
import { extent, isMissing, nearest } from "./packed.js";
import { reading } from "./text.js";
import { logTicks, tickText } from "./ticks.js";

/** Points of one line. A step that was not measured is left out; a NaN or Inf breaks the line and is marked. */
function points({ steps, column }) {
  const [x, y, odd] = [[], [], []];
  const { values, low, high } = column;
  for (let index = 0; index < steps.length; index += 1) {
    const value = values[index];
    if (isMissing(values, index)) continue;
    if (!Number.isFinite(value)) odd.push(steps[index]);
    if (!Number.isFinite(low ? low[index] : value)) {
      x.push(steps[index]);
      y.push(null);
    } else if (low && low[index] !== high[index]) {
      x.push(steps[index], steps[index]);
      y.push(low[index], high[index]);
    } else {
      x.push(steps[index]);
      y.push(value === value ? value : null);
    }
  }
  return { x, y, odd };
}

export class Curves extends Panel {
  constructor(name, act, { height, tools = [], inline = false } = {}) {
    super(name, act, { height, tools, inline });
    this.values = [];
  }

  /** shown: {lines: [{name, steps, column, colour, dash, width, open}], range, windows, logarithmic}; open is called on a click on its name. */
  show({ lines, range, windows, logarithmic }) {
    this.lines = lines;
    this.plot.style.height = `${this.height}px`;
    const traces = [];
    const odd = [];
    for (const line of lines) {
      const { x, y, odd: marks } = points(line);
      odd.push(...marks);
      traces.push({
        type: "scatter",
        mode: x.length < 2 ? "markers" : "lines",
        x,
        y,
        hoverinfo: "skip",
        connectgaps: false,
        line: { color: line.colour, width: line.width ?? 1.4, dash: line.dash ?? "solid", simplify: false },
        marker: { color: line.colour, size: 6 },
      });
    }
    if (odd.length) traces.push(marks([...new Set(odd)]));
    this.makeReadout();
    const yaxis = logarithmic ? logAxis(lines, range) : linearAxis(lines, range);
    const hidden = { overlaying: "y", range: [0, 1], visible: false, fixedrange: true };
    return this.draw(traces, { yaxis, yaxis2: hidden, shapes: shades(windows) }, range);
  }

  makeReadout() {
    this.values = this.lines.map(() => h("b"));
    this.readout.classList.toggle("many", this.lines.length > 8);
    this.readout.replaceChildren(
      ...this.lines.map((line, index) => {
        const swatch = h("i.stroke");
        swatch.style.borderTop = `2px ${line.dash && line.dash !== "solid" ? "dashed" : "solid"} ${line.colour}`;
        const parts = line.name ? [swatch, h("span", {}, line.short ?? line.name), this.values[index]] : [this.values[index]];
        return line.open
          ? h("button.value", { type: "button", onclick: line.open, title: `Show the heads of ${line.name}` }, ...parts)
          : h("span.value", {}, ...parts);
      }),
    );
  }

  read(cursor) {
    this.lines?.forEach(({ steps, column }, index) => {
      const at = cursor ? nearest(steps, cursor.step) : steps.length - 1;
      const { values, low, high } = column;
      const bucket = this.lines.length < 5 && at >= 0 && low && low[at] !== high[at] && Number.isFinite(low[at]);
      const text = at < 0 ? "–" : reading(values[at], isMissing(values, at));
      this.values[index].textContent = bucket ? `${text} (${reading(low[at])}…${reading(high[at])})` : text;
    });
  }
}

const marks = (steps) => ({
  type: "scatter",
  mode: "markers",
  x: steps,
  y: steps.map(() => 0.94),
  yaxis: "y2",
  hoverinfo: "skip",
  marker: { symbol: "x", size: 7, color: token("odd") },
});

/** Smallest and largest value of all lines within a range, or null. */
function reach(lines, range = []) {
  const spans = lines.map(({ column, steps }) => extent([column], steps, ...range)).filter(Boolean);
  return spans.length ? [Math.min(...spans.map(([low]) => low)), Math.max(...spans.map(([, high]) => high))] : null;
}

/** From the lowest to the highest value in sight, with a little room. */
function linearAxis(lines, range) {
  const [low, high] = reach(lines, range) ?? [0, 1];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return { type: "linear", range: [low - room, high + room], nticks: 5, exponentformat: "power", tickmode: "auto" };
}

function logAxis(lines, range) {
  const [low, high] = reach(lines, range) ?? [1, 10];
  const room = Math.log10(high / low) * 0.06 || 0.05;
  const ticks = logTicks(low * 10 ** -room, high * 10 ** room, 4);
  const ends = [Math.log10(low) - room, Math.log10(high) + room];
  return { type: "log", range: ends, tickvals: ticks.map((tick) => 10 ** tick), ticktext: ticks.map(tickText) };
}

/** True if a log axis serves these lines: all positive, and spread over more than a factor of 30. */
export function wantsLog(lines) {
  const [low, high] = reach(lines) ?? [0, 0];
  return { possible: low > 0, sensible: low > 0 && high / low > 30 };
}
