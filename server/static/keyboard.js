// Keys work wherever the focus is, but in a field.

/** actions: {j, k, "[", "]", f, t, i, "/", "?", Escape}. */
export function listen(actions) {
  addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.closest?.("select, textarea, input:not([type=checkbox]), dialog")) return;
    if (!actions[key]) return;
    event.preventDefault();
    actions[key]();
  });
}
