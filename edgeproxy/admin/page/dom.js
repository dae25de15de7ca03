// Elements without markup: whatever a client sent is text, and never becomes HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

export const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);
export const byId = (id) => document.getElementById(id);

/** A bar that is full at 1; `kind` is the name of a colour. */
export function meter(share, kind = "hit") {
  const width = Math.max(0, Math.min(1, share || 0)) * 100;
  return el("span", { class: "meter", "aria-hidden": "true" },
    svg("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none" },
      svg("rect", { class: `s-${kind}`, width, height: 6 })));
}

export const pill = (text, kind = "") => el("span", { class: `pill ${kind}` }, text);
