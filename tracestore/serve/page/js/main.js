// Which screen is shown. A screen is a function (main element, route) that may give a function to call when it is left.

import { Problem, trace } from "./api.js";
import { fill, h } from "./dom.js";
import { link, parse } from "./route.js";
import { hideTip } from "./tooltip.js";

const SCREENS = {
  "": ["Traces", () => import("./screens/traces.js")],
  trace: ["Trace", () => import("./screens/trace.js")],
  mechanism: ["Mechanism", () => Promise.all([import("./screens/mechanism.js"), d3Ready()]).then(([screen]) => screen)],
  heads: ["Heads", () => import("./screens/heads.js")],
  across: ["Across prompts", () => import("./screens/across.js")],
  compare: ["Side by side", () => import("./screens/compare.js")],
  reasoning: ["Reasoning", () => import("./screens/reasoning.js")],
};
const OF_A_TRACE = ["trace", "mechanism", "heads", "reasoning"];

const main = document.getElementById("main");
let leave = null;
let turn = 0;
let last = { id: "", output: "" }; // the trace that was looked at last: its screens stay one click away

async function show() {
  const route = parse();
  const mine = (turn += 1);
  hideTip();
  leave?.();
  leave = null;
  if (OF_A_TRACE.includes(route.screen) && !route.id && route.screen !== "heads") return location.replace(link());
  if (OF_A_TRACE.includes(route.screen) && route.id) last = { id: route.id, output: route.params.output ?? "" };
  const [name, load] = SCREENS[route.screen] ?? SCREENS[""];
  document.title = `${name} – tracestore`;
  navigate(route.screen);
  const place = h("div");
  if (OF_A_TRACE.includes(route.screen) && route.id) trace(route.id).catch(() => {}); // on its way while the screen's code is; the screen tells of errors
  try {
    const screen = await load();
    const leaving = await screen.show(place, route);
    if (mine !== turn) return leaving?.();
    leave = leaving ?? null;
    fill(main, place);
  } catch (error) {
    if (mine !== turn) return;
    fill(main, h("h1", {}, name), h("p.problem", { role: "alert" }, told(error)));
    if (!(error instanceof Problem)) throw error;
  }
}

let d3Loading = null;

/** Load d3, which is large and of use to one screen only. */
function d3Ready() {
  d3Loading ??= new Promise((resolve, reject) => {
    const script = h("script", { src: "page/vendor/d3/d3.min.js", on: { load: resolve, error: () => reject(new Problem(0, "unreachable", "d3 could not be loaded.")) } });
    document.head.append(script);
  }).catch((error) => {
    d3Loading = null;
    throw error;
  });
  return d3Loading;
}

function told(error) {
  return error instanceof Problem ? error.message : "This screen could not be drawn; the browser's console says why.";
}

function navigate(current) {
  const tabs = Object.entries(SCREENS).map(([screen, [name]]) => {
    const own = OF_A_TRACE.includes(screen);
    if (own && screen !== "heads" && !last.id) return null;
    const target = own && last.id ? link(screen, last.id, { output: last.output }) : link(screen);
    return h("a", { href: target, "aria-current": screen === current ? "page" : null }, name);
  });
  fill(document.getElementById("screens"), tabs);
}

const theme = document.getElementById("theme");

function dress(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  theme.setAttribute("aria-pressed", String(dark));
  window.dispatchEvent(new CustomEvent("dressed"));
}

theme.addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme !== "dark";
  localStorage.setItem("tracestore-theme", dark ? "dark" : "light");
  dress(dark);
});
const system = matchMedia("(prefers-color-scheme: dark)");
const chosen = () => localStorage.getItem("tracestore-theme");
system.addEventListener("change", () => chosen() || dress(system.matches));
dress(chosen() ? chosen() === "dark" : system.matches);

window.addEventListener("noted", () => {
  const route = parse();
  if (OF_A_TRACE.includes(route.screen) && route.id) {
    last = { id: route.id, output: route.params.output ?? "" };
    navigate(route.screen);
  }
});
window.addEventListener("hashchange", async () => {
  await show();
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
});
show();
