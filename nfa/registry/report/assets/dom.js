"use strict";
// Making elements. Texts become text nodes: nothing that somebody has named can be markup.

/** An element; attributes that are functions listen to the event of their name. */
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function button(text, clicked, attributes = {}, ...more) {
  return el("button", { type: "button", click: clicked, ...attributes }, text, ...more);
}

/** A choice of one of `[value, text]`. */
function select(label, options, chosen, changed) {
  const box = el("select", { change: (event) => changed(event.target.value) });
  for (const [value, text] of options) box.append(el("option", { value, selected: value === chosen }, text));
  return el("label", {}, `${label} `, box);
}

let saidUntil;
/** Tells what has happened, to the eye and to a screen reader. */
function say(text) {
  const place = document.getElementById("said");
  place.textContent = text;
  clearTimeout(saidUntil);
  saidUntil = setTimeout(() => (place.textContent = ""), 4000);
}

let lastId = 0;
function newId(name) {
  lastId += 1;
  return `${name}-${lastId}`;
}

const UNDRAWN = new Map();
let observer;
/** Draws into an element when it comes near to what the reader sees. */
function lazily(element, draw) {
  observer ??= new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => drawNow(entry.target)),
    { rootMargin: "300px" },
  );
  UNDRAWN.set(element, draw);
  observer.observe(element);
}

function drawNow(element) {
  const draw = UNDRAWN.get(element);
  observer.unobserve(element);
  UNDRAWN.delete(element);
  if (draw && element.isConnected) draw(element);
}

/** Draws all that is waiting, for paper. */
function drawAll() {
  for (const element of [...UNDRAWN.keys()]) drawNow(element);
}
