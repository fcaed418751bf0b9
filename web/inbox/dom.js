/** Making elements without markup: whatever comes from a server is only ever text or a checked URL. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element with attributes and children. `true` sets an attribute without a value; `false` and
 * undefined leave it out. Strings among the children become text nodes.
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) set(element, name, value);
  element.append(...children);
  return element;
}

/** Sets or removes an attribute. It does nothing when nothing changes, so that no observer fires. */
export function set(element, name, value) {
  if (value === false || value === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== `${value === true ? "" : value}`) {
    element.setAttribute(name, value === true ? "" : value);
  }
}

/** A picture of 24 by 24, drawn with lines, that screen readers pass over. */
export function icon(...paths) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [name, value] of [["viewBox", "0 0 24 24"], ["aria-hidden", "true"], ["focusable", "false"]]) {
    svg.setAttribute(name, value);
  }
  for (const d of paths) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}

/**
 * The URL of a link if following it does no harm: http, https, or a path of this site. Otherwise null,
 * such as for `javascript:`, or for `//host` and `/\host`, which are other sites.
 */
export function safeUrl(text) {
  if (!text) return null;
  try {
    const url = new URL(text, location.origin);
    if (!/^https?:$/.test(url.protocol)) return null;
    return /^https?:\/\//i.test(text) || url.origin === location.origin ? url.href : null;
  } catch {
    return null;
  }
}
