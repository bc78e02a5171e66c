// Small ways to make elements, and to change those that are there: no markup from strings, so nothing a run contains can become markup.

/** Make an element: h("p.note", {title: "x"}, "text", child). A key that begins with "on" is a listener; "key" names it among its siblings. */
export function h(spec, attributes = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) listen(element, key.slice(2), value);
    else if (key === "key") element.dataset.key = value;
    else if (key in element && typeof value !== "string") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...present(children));
  return element;
}

const present = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);

/** Listen to an event; patch() can give the element another listener in its place. */
function listen(element, kind, act) {
  element.acts ??= {};
  element.acts[kind] = act;
  element.addEventListener(kind, (event) => element.acts[kind]?.(event));
}

/** Make the children of an element like these, and keep the elements that are there already: their focus, their scrolling, what a reader has opened. */
export function patch(element, ...children) {
  const wanted = present(children).map((child) => (child instanceof Node ? child : document.createTextNode(child)));
  const named = new Map([...element.childNodes].filter((child) => child.dataset?.key).map((child) => [child.dataset.key, child]));
  const focused = document.activeElement;
  wanted.forEach((next, index) => {
    const here = element.childNodes[index] ?? null;
    const key = next.dataset?.key;
    const match = key ? named.get(key) : here?.dataset?.key ? null : here;
    if (!match || match.nodeName !== next.nodeName) return element.insertBefore(next, here);
    if (match !== here) element.insertBefore(match, here);
    become(match, next);
  });
  while (element.childNodes.length > wanted.length) element.lastChild.remove();
  if (focused !== document.activeElement && element.contains(focused)) focused.focus({ preventScroll: true });
}

/** Give an element the text, attributes, listeners and children of another. */
function become(old, next) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!next.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value && name !== "open") old.setAttribute(name, value);
  }
  if (old.nodeName === "INPUT" && old.type === "checkbox") old.checked = next.checked;
  for (const [kind, act] of Object.entries(next.acts ?? {})) {
    if (old.acts?.[kind]) old.acts[kind] = act;
    else listen(old, kind, act);
  }
  patch(old, ...next.childNodes);
}

const PATHS = {
  error: "M5.2 1.5h5.6l3.7 3.7v5.6l-3.7 3.7H5.2l-3.7-3.7V5.2zM8 4.6v4.2M8 11.2v.3",
  warning: "M8 2 14.6 13.7H1.4zM8 6.3v3.5M8 11.7v.3",
  info: "M8 1.6a6.4 6.4 0 1 0 0 12.8A6.4 6.4 0 0 0 8 1.6M8 7.3v4M8 4.7v.3",
  finished: "M3 8.6 6.4 12 13 4.6",
  failed: "M4 4l8 8M12 4l-8 8",
  crashed: "M4 4l8 8M12 4l-8 8",
  running: "M5 3.4v9.2L12.4 8z",
  starting: "M8 1.6a6.4 6.4 0 1 0 0 12.8A6.4 6.4 0 0 0 8 1.6M8 4.4V8h3",
  paused: "M5.5 3.5v9M10.5 3.5v9",
  stale: "M8 1.6a6.4 6.4 0 1 0 0 12.8A6.4 6.4 0 0 0 8 1.6M8 4.4V8l2.6 1.8",
  theme: "M8 1.6a6.4 6.4 0 1 0 0 12.8zM8 1.6a6.4 6.4 0 0 1 0 12.8",
  help: "M5.6 5.9C5.6 4.3 6.6 3.4 8 3.4s2.5 1 2.5 2.3c0 2-2.5 2-2.5 4M8 12.3v.3",
  table: "M2 3.5h12v9H2zM2 6.5h12M2 9.5h12M6.5 3.5v9",
  download: "M8 2v8M4.8 7.2 8 10.4l3.2-3.2M3 13.4h10",
  copy: "M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3",
  details: "M2.5 4h11M2.5 8h11M2.5 12h7",
  fit: "M2 8h12M4.6 5.4 2 8l2.6 2.6M11.4 5.4 14 8l-2.6 2.6",
  open: "M6 3.5 10.5 8 6 12.5",
};

/** An icon of 16 by 16 in the colour of the text; it is decoration, a word next to it or a label names it. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button that shows only an icon; its label is read out and shown as a tooltip. */
export function iconButton(name, label, onclick, attributes = {}) {
  return h("button.quiet", { type: "button", "aria-label": label, title: label, onclick, ...attributes }, icon(name));
}

export const byId = (id) => document.getElementById(id);
