// The steps in sight as a CSV file. A sample is one number; a bucket of samples says its lowest, mean and highest.
import { isMissing } from "./packed.js";

const quote = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const written = (value) => String(value).replace("Infinity", "inf");

/** The parts of a line: {heading, at(index)}; what was not measured is empty, NaN and inf are written out. */
function parts({ name, column }) {
  const of = (part) => (index) => (isMissing(column.values, index) ? "" : written(column[part][index]));
  if (!column.low) return [{ heading: name, at: of("values") }];
  return [["lowest", "low"], ["mean", "values"], ["highest", "high"]].map(([word, part]) => ({ heading: `${name} ${word}`, at: of(part) }));
}

/** The text of lines [{name, steps, column}] within a range of steps. */
export function csv(lines, range) {
  const steps = [...new Set(lines.flatMap(({ steps: own }) => [...own]))].sort((a, b) => a - b);
  const shown = range ? steps.filter((step) => step >= range[0] && step <= range[1]) : steps;
  const columns = lines.flatMap((line) => {
    const at = new Map([...line.steps].map((step, index) => [step, index]));
    return parts(line).map((part) => ({ ...part, cell: (step) => (at.has(step) ? part.at(at.get(step)) : "") }));
  });
  const first = lines.some(({ column }) => column.low) ? "first step" : "step";
  const head = [first, ...columns.map(({ heading }) => quote(heading))].join();
  return [head, ...shown.map((step) => [step, ...columns.map(({ cell }) => cell(step))].join()), ""].join("\n");
}

export function saveCsv(file, lines, range) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv(lines, range)], { type: "text/csv" }));
  link.download = file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
