// Runs laid over one another: one line a run.
import { DASHES, runColour } from "./colours.js";
import { isMissing } from "./packed.js";

/** The two metrics of the run that have panels of their own. */
export const LOSS = "loss";
export const GRADIENT = "total_gradient_norm";

/** Read what the other runs have of the shown series. */
export function overlay(sessions, metric, layer, range) {
  return Promise.all(
    sessions.map(async (session) => {
      const read = (name) => session.read("series", name, null, range);
      const own = layer && session.metric(metric)?.layers.includes(layer) ? layer : null;
      const map = metric ? session.read("heatmap", metric, own, range) : null;
      const [loss, gradient, curve, heat] = await Promise.all([read(LOSS), read(GRADIENT), metric ? read(metric) : null, map]);
      return { run: session.run, loss, gradient, curve, heat, layer };
    }),
  );
}

/** One line a run of "loss", "gradient" or "curve": the chosen run first, in the colour of text. */
export function overlayLegend(run, series, laid, what) {
  const layer = laid[0]?.layer ?? null;
  const all = [{ run, series }, ...laid.map((one) => ({ run: one.run, series: one[what] }))];
  return all.flatMap((one, index) => {
    if (!one.series) return [];
    const column = what === "curve" ? ofLayer(one.series, layer) : one.series.columns[0];
    if (!column) return [];
    const style = { colour: runColour(index), dash: DASHES[index % DASHES.length], width: index ? 1.6 : 1.4 };
    return [{ name: laid.length ? one.run : "", steps: one.series.steps, column, ...style }];
  });
}

/** The column of a layer, or of a head's layer; without one the largest value over layers, where a NaN wins. */
function ofLayer(series, layer) {
  if (layer && series.columns[0].head === null) return series.columns.find((column) => column.layer === layer);
  const largest = (part) => {
    if (!series.columns[0][part]) return null;
    const result = series.columns[0][part].slice();
    for (const column of series.columns.slice(1)) {
      column[part].forEach((value, index) => {
        if (isMissing(column[part], index)) return;
        if (isMissing(result, index) || value > result[index] || value !== value) result[index] = value;
      });
    }
    return result;
  };
  return { layer, head: null, values: largest("values"), low: largest("low"), high: largest("high") };
}
