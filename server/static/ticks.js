// Ticks of log scales, in plain numbers.
import { number } from "./text.js";

/** Powers of ten of about `most` round values between low and high, both positive. */
export function logTicks(low, high, most = 7) {
  const [first, last] = [Math.log10(low), Math.log10(high)];
  const wide = last - first;
  const steps = wide > most - 1 ? [1] : wide > most / 3 ? [1, 3] : wide > 0.8 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7];
  const stride = Math.max(1, Math.ceil(wide / most));
  const ticks = [];
  for (let power = Math.floor(first / stride) * stride; power <= last; power += stride) {
    ticks.push(...steps.map((step) => Math.log10(step) + power));
  }
  const inside = ticks.filter((tick) => tick >= first && tick <= last);
  return inside.length > 1 ? inside : [first, last];
}

export const tickText = (tick) => number(Number((10 ** tick).toPrecision(3)));
