// One box for the numbers of what is pointed at or has the focus.

import { fill, h } from "./dom.js";

const box = document.getElementById("tip");

export function showTip(title, facts, x, y) {
  fill(box, h("b", {}, title), h("dl", {}, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
  box.hidden = false;
  const size = box.getBoundingClientRect();
  box.style.setProperty("left", `${Math.max(8, Math.min(x + 14, innerWidth - size.width - 8))}px`);
  box.style.setProperty("top", `${y + 18 + size.height > innerHeight ? Math.max(8, y - size.height - 14) : y + 18}px`);
}

export function hideTip() {
  box.hidden = true;
}

/** Show what `facts(element)` gives ([title, [[name, value]]]) for elements in a container that match a selector. */
export function tipsFor(container, selector, facts) {
  const show = (event, x, y) => {
    const element = event.target.closest?.(selector);
    const told = element && facts(element);
    if (told) showTip(told[0], told[1], x ?? element.getBoundingClientRect().left, y ?? element.getBoundingClientRect().bottom - 12);
  };
  container.addEventListener("pointerover", (event) => show(event, event.clientX, event.clientY));
  container.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && show(event));
  container.addEventListener("pointerout", hideTip);
  container.addEventListener("focusout", hideTip);
}

window.addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
window.addEventListener("scroll", hideTip, { passive: true });
