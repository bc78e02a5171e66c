// Curves over steps. Nothing is smoothed and no point is clipped: a pixel shows the lowest and the highest value of its steps.
import { h } from "./dom.js";
import { drawLimits, drawWarmUp, paintBand, shade } from "./bands.js";
import { Panel } from "./panel.js";
import { token } from "./colours.js";
import { extent, isMissing, nearest } from "./packed.js";
import { linearAxis } from "./plot.js";
import { reading } from "./text.js";
import { logTicks, tickText } from "./ticks.js";

const NONE = { low: null, high: null };
const DASH = { solid: [], dash: [7, 4], dot: [2, 3], dashdot: [7, 3, 2, 3], longdash: [12, 4] };

/** Pixels after which a line is drawn so far: a long noisy path takes more than its pieces. */
const PIECE = 8;

/** Trace a line: within a pixel from its first value over its lowest and highest to its last; a NaN or an infinity breaks it. */
export function trace(context, plot, { steps, column }, place) {
  const { values, low, high } = column;
  let pixel = null;
  let [first, least, most, last] = [0, 0, 0, 0];
  let pen = false;
  let count = 0;
  const put = () => {
    if (pixel === null) return;
    count += 1;
    if (count % PIECE === 0 && pen) {
      context.lineTo(pixel, first);
      context.stroke();
      context.beginPath();
      context.moveTo(pixel, first);
    }
    if (pen) context.lineTo(pixel, first);
    else context.moveTo(pixel, first);
    pen = true;
    context.lineTo(pixel, least);
    context.lineTo(pixel, most);
    context.lineTo(pixel + (least === most && first === last ? 0.01 : 0), last);
    pixel = null;
  };
  for (let index = 0; index < steps.length; index += 1) {
    if (isMissing(values, index)) continue;
    const [a, b] = low ? [low[index], high[index]] : [values[index], values[index]];
    if (!Number.isFinite(a) || !Number.isFinite(b)) {
      put();
      pen = false;
      continue;
    }
    const at = Math.round(plot.x(steps[index]) * 2) / 2;
    const [ya, yb] = [plot.y(place(a)), plot.y(place(b))];
    if (at !== pixel) {
      put();
      [pixel, first, least, most] = [at, ya, Math.min(ya, yb), Math.max(ya, yb)];
    } else {
      least = Math.min(least, ya, yb);
      most = Math.max(most, ya, yb);
    }
    last = yb;
  }
  put();
}

/** Steps at which a number was measured and is not finite, each with what it is. */
function odd({ steps, column }) {
  const found = [];
  const { values, low, high } = column;
  for (let index = 0; index < steps.length; index += 1) {
    if (isMissing(values, index)) continue;
    const seen = [values[index], low?.[index], high?.[index]].filter((value) => value !== undefined && !Number.isFinite(value));
    if (!seen.length) continue;
    const kind = seen.includes(Infinity) ? "above" : seen.includes(-Infinity) ? "below" : "nan";
    found.push({ step: steps[index], kind });
  }
  return found;
}

/** Mark NaN by a cross and infinities by arrows, each in a colour of its own. */
export function mark(context, plot, lines) {
  const { top, height } = plot.area;
  const seen = new Set();
  for (const { step, kind } of lines.flatMap(odd)) {
    const x = plot.x(step);
    const key = `${kind} ${Math.round(x)}`;
    if (seen.has(key)) continue;
    seen.add(key);
    const y = kind === "below" ? top + height - 7 : top + 8;
    context.strokeStyle = context.fillStyle = token(kind === "nan" ? "odd" : kind);
    context.lineWidth = 2;
    context.beginPath();
    if (kind === "nan") {
      for (const turn of [-1, 1]) {
        context.moveTo(x - 3.5, y - 3.5 * turn);
        context.lineTo(x + 3.5, y + 3.5 * turn);
      }
      context.stroke();
      continue;
    }
    const tip = kind === "above" ? -5 : 5;
    context.moveTo(x, y + tip);
    context.lineTo(x - 4.5, y - tip * 0.7);
    context.lineTo(x + 4.5, y - tip * 0.7);
    context.fill();
  }
}

export class Curves extends Panel {
  /** shown: {lines: [{name, steps, column, colour, dash, width, open}], range, windows, logarithmic, limits: {low, high}, warm}; open is called on a click on its name, warm is the step at which the warm-up ends. */
  show({ lines, range, windows, logarithmic, limits = NONE, warm = null }) {
    this.lines = lines;
    this.makeReadout();
    const place = logarithmic ? Math.log10 : (value) => value;
    const paint = (context, plot) => {
      paintBand(context, plot, limits, place);
      shade(context, plot, windows);
      context.lineJoin = "bevel"; // round joins of a noisy line take most of the time that it takes to draw it
      for (const line of lines) {
        context.strokeStyle = line.colour;
        context.lineWidth = line.width ?? 1.4;
        context.setLineDash(DASH[line.dash ?? "solid"]);
        context.beginPath();
        trace(context, plot, line, place);
        context.stroke();
      }
      context.setLineDash([]);
      mark(context, plot, lines);
      drawLimits(context, plot, limits, place);
      drawWarmUp(context, plot, warm);
    };
    const reached = reach(lines, range);
    this.draw({ range, paint, y: logarithmic ? logAxis(...(reached ?? [1, 10])) : linearAxis(...(reached ?? [0, 1])) });
    const empty = !lines.some(({ steps }) => steps.some((step) => step >= range[0] && step <= range[1]));
    this.element.classList.toggle("empty", empty);
  }

  /** Make the names and values of the lines, unless they are there already: a reader's focus stays. */
  makeReadout() {
    const names = JSON.stringify(this.lines.map(({ name, colour, dash, open }) => [name, colour, dash, Boolean(open)]));
    if (names === this.names) return;
    this.names = names;
    this.values = this.lines.map(() => h("b"));
    this.readout.classList.toggle("many", this.lines.length > 8);
    this.readout.replaceChildren(
      ...this.lines.map((line, index) => {
        const swatch = h("i.stroke");
        swatch.style.borderTop = `2px ${line.dash && line.dash !== "solid" ? "dashed" : "solid"} ${line.colour}`;
        const shown = line.name ? [swatch, h("span", {}, line.short ?? line.name), this.values[index]] : [this.values[index]];
        const open = () => this.lines[index].open();
        return line.open
          ? h("button.value", { type: "button", onclick: open, title: `Show the heads of ${line.name}` }, ...shown)
          : h("span.value", {}, ...shown);
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

/** Smallest and largest value of all lines within a range, or null. */
export function reach(lines, range = []) {
  const spans = lines.map(({ column, steps }) => extent([column], steps, ...range)).filter(Boolean);
  return spans.length ? [Math.min(...spans.map(([low]) => low)), Math.max(...spans.map(([, high]) => high))] : null;
}

export function logAxis(low, high, most = 4) {
  const room = Math.log10(high / low) * 0.06 || 0.05;
  const ends = [Math.log10(low) - room, Math.log10(high) + room];
  return { ends, ticks: logTicks(10 ** ends[0], 10 ** ends[1], most).map((tick) => [tick, tickText(tick)]) };
}

/** True if a log axis serves these lines: all positive, and spread over more than a factor of 30. */
export function wantsLog(lines) {
  const [low, high] = reach(lines) ?? [0, 0];
  return { possible: low > 0, sensible: low > 0 && high / low > 30 };
}
