// Elements without markup in strings: text is always text, so no stored prompt can become a tag.

/** Make an element. `given`: properties; `class`, `dataset`, `style` (custom properties), `on` (listeners), `aria-...` and other attributes. */
export function h(name, given = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  fit(element, given);
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The same in SVG. */
export function s(name, given = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(given)) {
    if (key === "on") listen(element, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function fit(element, given) {
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "on") listen(element, value);
    else if (key === "class") element.className += ` ${value}`;
    else if (key === "dataset") Object.assign(element.dataset, value);
    else if (key === "style") for (const [name, part] of Object.entries(value)) element.style.setProperty(name, part);
    else if (key in element && !key.includes("-") && key !== "list" && key !== "role") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
}

function listen(element, listeners) {
  for (const [event, listener] of Object.entries(listeners)) element.addEventListener(event, listener);
}

/** Put new children in the place of the old ones. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Tell a screen reader what has changed. */
export function say(text) {
  document.getElementById("said").textContent = text;
}

/** One tab stop for a group of elements; arrow keys, Home and End go from one to the next. `across`: elements in a row, for up and down. */
export function rove(container, selector, across = () => 1) {
  const all = () => [...container.querySelectorAll(selector)];
  all().forEach((element, index) => (element.tabIndex = index === 0 ? 0 : -1));
  container.addEventListener("keydown", (event) => {
    const elements = all();
    const at = elements.indexOf(document.activeElement);
    if (at < 0) return;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across(), ArrowUp: -across(), Home: -at, End: elements.length - 1 - at };
    if (!(event.key in steps)) return;
    event.preventDefault();
    elements[Math.max(0, Math.min(elements.length - 1, at + steps[event.key]))].focus();
  });
  container.addEventListener("focusin", (event) => {
    if (!event.target.matches(selector)) return;
    for (const element of container.querySelectorAll(`${selector}[tabindex="0"]`)) element.tabIndex = -1;
    event.target.tabIndex = 0;
  });
}
