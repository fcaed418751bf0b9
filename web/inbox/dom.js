/** Making elements without markup: whatever comes from a server is only ever text or a checked URL. */

/** An element with properties and children. `name` is both its class, for our styles, and its part, for the page's. */
export function h(tag, name, properties, ...children) {
  const element = Object.assign(document.createElement(tag), { className: name, part: name }, properties);
  element.append(...children);
  return element;
}

/** What only screen readers tell. */
export const spoken = (text, role) => h("span", "", { className: "sr", role }, text);

/** A picture of 24 by 24 pixels, drawn with one line, that screen readers pass over. */
export function icon(line) {
  const [svg, path] = ["svg", "path"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  svg.ariaHidden = true;
  path.setAttribute("d", line);
  svg.append(path);
  return svg;
}

/** Children of `box`, made anew only when `key` is another one; without a key the box is hidden. */
export function fill(box, key, children) {
  if (box._key === key) return;
  box._key = key;
  box.hidden = !key;
  box.replaceChildren(...(key ? children() : []));
}

/** Listens until `signal` ends it. */
export const on = (target, type, react, signal, capture) => target.addEventListener(type, react, { signal, capture });

/** Whether a click or key means more than it does alone, such as to open a tab. */
export const isModified = (event) => event.altKey || event.ctrlKey || event.metaKey || event.shiftKey;

/** Does it every `ms` milliseconds until `signal` ends it. */
export function every(ms, act, signal) {
  const timer = setInterval(act, ms);
  on(signal, "abort", () => clearInterval(timer));
}

/** A function that collects what it is given within `ms` milliseconds, and then has `act` do all of it. */
export function batched(ms, act) {
  let items = [];
  return (item) => {
    if (items.push(item) > 1) return;
    setTimeout(() => {
      act(items);
      items = [];
    }, ms);
  };
}

/**
 * The URL of a link if following it does no harm: http, https, or a path of this site. Otherwise undefined,
 * such as for `javascript:`, or for `//host` and `/\host`, which are other sites.
 */
export function safeUrl(text) {
  try {
    const { href } = new URL(text || "x:", location.origin);
    if (/^https?:\/\//i.test(text) || href.startsWith(`${location.origin}/`)) return href;
  } catch {
    // no URL
  }
}
