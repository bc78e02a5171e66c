// What is shown where no run is chosen: the table of all runs, or the rules and words.
import { listRules, listWords } from "./api.js";
import { drawHome } from "./home.js";
import { drawRulebook } from "./rulebook.js";

/** Rows of the table of runs that are drawn until a reader asks for more. */
let rows = 100;
const unfolded = new Set();
let book = null;

/** Draw the table of runs; say(title, text) is for a folder without any. act: {open(name), change(patch), compare}. */
export function showRuns(container, { list, state, href }, { say, open, change, redraw }) {
  document.title = "stabmon";
  if (!list.runs.length) {
    const text = `${list.directory} holds no run. Start one with stabmon.watch(model, optimizer, dir="${list.directory}"), or see stabmon demo.`;
    container.replaceChildren();
    return say("No runs yet", `${text} This page shows it as soon as it is there.`);
  }
  say("");
  const act = {
    open,
    sort: (id) => change({ sort: state.sort === id ? `-${id}` : state.sort === `-${id}` ? null : id }),
    find: (text) => change({ find: text || null }),
    choose: (name, on) => change({ with: on ? [...state.with, name].slice(-6) : state.with.filter((one) => one !== name) }),
    compare: ([first, ...others]) => change({ run: first, with: others }),
    fold: (group) => [unfolded.has(group) ? unfolded.delete(group) : unfolded.add(group), redraw()],
    more: () => [(rows = Infinity), redraw()],
  };
  return drawHome(container, { list, state, rows, unfolded, href }, act);
}

/** Draw the rules, one rule or the glossary. */
export async function showRules(container, state, { say, change }) {
  say("");
  book ??= Promise.all([listRules(), listWords()]);
  const found = await book.catch((error) => {
    book = null;
    say("The rules cannot be read", error.message);
  });
  if (!found) return;
  const [rules, glossary] = found;
  document.title = `${state.rules === "all" ? "Rules" : state.rules === "glossary" ? "Glossary" : state.rules} · stabmon`;
  const href = (page) => `?${new URLSearchParams({ rules: page, ...(state.theme ? { theme: state.theme } : {}) })}`;
  drawRulebook(container, { page: state.rules, rules, glossary, href }, { open: (page) => [change({ rules: page }), scrollTo(0, 0)] });
  if (location.hash.startsWith("#word-")) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}
