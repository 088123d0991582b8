// Elements and words. Text from models and prompts only ever becomes text nodes.

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  setAttributes(node, attributes);
  node.append(...children.filter((child) => child !== null));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  setAttributes(node, attributes);
  node.append(...children);
  return node;
}

function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) node.setAttribute(name, value);
  }
}

function byId(id) {
  return document.getElementById(id);
}

function count(number, thing) {
  return `${number.toLocaleString("en")} ${thing}${number === 1 ? "" : "s"}`;
}

const SIGNS = { " ": "·", "\n": "⏎", "\r": "␍", "\t": "⇥" };

// A token's text with what cannot be seen made visible.
function visible(piece, id) {
  if (piece === "") return `⟨${id}⟩`;
  return piece.replace(/[ \n\r\t]/g, (character) => SIGNS[character]);
}

// The same inside running text: lines still break and spaces stay spaces.
function flowing(piece, id) {
  if (piece === "") return `⟨${id}⟩`;
  return piece.replace(/\n/g, "⏎\n");
}

function percent(share, beyond = false) {
  if (beyond) return "< 1e-25 %";
  const value = 100 * share;
  if (value === 0) return "0 %";
  if (value < 0.001) return `${value.toExponential(1)} %`;
  return `${value.toFixed(value < 1 ? 3 : 1)} %`;
}

function nats(value, digits = 3) {
  return value === Infinity ? "∞" : value.toFixed(digits);
}

function logarithm(value) {
  return value === Infinity ? "−∞" : value === 0 ? nats(0) : `−${nats(value)}`;
}

// For axes and read-outs: three digits, without trailing noise.
function short(value) {
  if (value === 0) return "0";
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}
