// The visible values, as a CSV file.
import { isMissing } from "./packed.js";

const quote = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

/** Save lines [{name, steps, column}] within a range of steps; what was not measured is empty, NaN and inf are written out. */
export function saveCsv(file, lines, range) {
  const steps = [...new Set(lines.flatMap(({ steps: own }) => [...own]))].sort((a, b) => a - b);
  const shown = range ? steps.filter((step) => step >= range[0] && step <= range[1]) : steps;
  const columns = lines.map(({ steps: own, column }) => {
    const at = new Map([...own].map((step, index) => [step, index]));
    return (step) => {
      const index = at.get(step);
      if (index === undefined || isMissing(column.values, index)) return "";
      return String(column.values[index]).replace("Infinity", "inf");
    };
  });
  const head = ["step", ...lines.map(({ name }) => quote(name))].join();
  const body = shown.map((step) => [step, ...columns.map((column) => column(step))].join());
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([[head, ...body].join("\n"), "\n"], { type: "text/csv" }));
  link.download = file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
