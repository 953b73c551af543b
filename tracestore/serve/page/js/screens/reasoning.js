// The steps of a reasoning: which step leaned on which, beside the text, and beside how a person explains the answer where that is known.

import { catalogue, query, trace as askTrace } from "../api.js";
import { fill, h, s, say } from "../dom.js";
import { cut, plain, signed } from "../format.js";
import { switcher } from "../parts/controls.js";
import { spanName, textView } from "../parts/text.js";
import { link, note } from "../route.js";

const ROW = 58;
const WIDTH = 560;
/** What an arc's width and the lists' order follow: its name, how it is told, and the value whose sign colours the arc. */
const MEASURES = {
  direct: { name: "What it rests on", say: "direct (unsigned, attention sinks left out)", sign: "score" },
  score: { name: "Signed score", say: "|score|", sign: "score" },
  total: { name: "Followed back through the steps between", say: "|total|", sign: "total" },
};

export async function show(place, { id, params }) {
  const [data, stored] = await Promise.all([askTrace(id), supports(id)]);
  const by = Object.hasOwn(MEASURES, params.by ?? "") ? params.by : "direct";
  const edges = stored.map((edge) => ({ ...edge, size: Math.abs(edge[by]), down: edge[MEASURES[by].sign] < 0 }));
  const used = new Set(edges.flatMap((edge) => [edge.source, edge.target]));
  const isCut = data.spans.some((span) => span.kind === "step"); // then the answer as a whole says nothing more
  const kinds = ["step", "document", "evidence", ...(isCut ? [] : ["answer"])];
  const spans = data.spans.filter((span) => kinds.includes(span.kind) || used.has(keyOf(span)))
    .sort((a, b) => a.first_pos - b.first_pos || a.last_pos - b.last_pos);
  const rationales = [...new Set(data.items.map((item) => item.rationale).filter(Boolean))];
  const text = textView(data, { label: "The text, token by token", onToken: () => { location.hash = link("trace", id); } });
  const graph = h("section.panel", { "aria-label": "Steps" });
  const change = (chosen) => {
    note({ by: chosen });
    show(place, { id, params: { by: chosen } });
  };
  fill(place, h("h1", {}, "Reasoning"),
    h("p.lead", {}, `Which step leaned on which: an arc runs from the span that carried to the span that was carried, its width by ${MEASURES[by].say}, its colour by the sign of its ${MEASURES[by].sign}.`),
    stored.length > 0 && h("div.tools", {}, switcher("Influence", Object.entries(MEASURES).map(([key, { name }]) => [key, name]), by, change)),
    h("div.three", {}, graph, h("div", {},
      rationales.length > 0 && h("section.panel", { "aria-label": "How a person explains it" }, h("h2", {}, "How a person explains it"), rationales.map((told) => h("p.rationale", {}, told))),
      h("section.panel", { "aria-label": "Text" }, h("h2", {}, "Text"), text.element))));
  if (spans.length < 2) {
    fill(graph, h("h2", {}, "Steps"), h("p.hint", {}, "This trace has no steps, documents or evidence marked. Items may mark them (key “spans”, kind “step”), and the spans of an answer can be explained as wholes with --targets span:step."));
    return;
  }
  drawSteps(graph, spans, edges, text, by);
}

const keyOf = (span) => `${span.kind}:${span.ordinal}`;

/** Give the stored supports of a trace as [{source, target, direct, score, total}] by kind and ordinal of the spans. */
async function supports(id) {
  const found = (await catalogue()).find((one) => one.name === "step_graph");
  if (!found) return [];
  const { rows } = await query("step_graph", { trace_id: id, k: 500 });
  return rows.map(({ direct, score, total, ...row }) => ({
    source: `${row.source_kind}:${row.source}`, target: `${row.step_kind}:${row.step}`, direct, score, total,
  }));
}

function drawSteps(graph, spans, edges, text, by) {
  const at = new Map(spans.map((span, index) => [keyOf(span), index]));
  const shown = edges.filter((edge) => at.has(edge.source) && at.has(edge.target) && edge.source !== edge.target);
  const largest = Math.max(0, ...shown.map((edge) => edge.size));
  const tell = (edge) => (by === "total" ? signed(edge.total) : `${plain(edge.direct)} (score ${signed(edge.score)})`);
  const y = (key) => at.get(key) * ROW + ROW / 2;
  const left = 190;
  const arcs = [...shown].sort((a, b) => a.size - b.size).map((edge) => {
    const [from, to] = [y(edge.source), y(edge.target)];
    const reach = left - 20 - Math.min(150, 26 + 0.42 * Math.abs(to - from));
    return s("path", { class: `arc ${edge.down ? "down" : "up"}`, d: `M${left} ${from}C${reach} ${from} ${reach} ${to} ${left} ${to}`, "stroke-width": 1 + (7 * edge.size) / (largest || 1), "stroke-opacity": 0.35 + (0.55 * edge.size) / (largest || 1), "data-ends": `${edge.source} ${edge.target}` },
      s("title", {}, `${edge.source} → ${edge.target}: ${tell(edge)} logits`));
  });
  const told = h("div", { role: "status" });
  const nodes = spans.map((span) => node(span, y(keyOf(span)), left, () => choose(span)));
  fill(graph, h("h2", {}, "Steps"),
    !shown.length && h("p.hint", {}, "No score between these spans is stored: explain the later ones as wholes with --targets span:step."),
    s("svg", { class: "steps", viewBox: `0 0 ${WIDTH} ${spans.length * ROW}`, role: "group", "aria-label": "Steps from the first to the last, with arcs between them" }, arcs, nodes), told);

  function choose(span) {
    const key = keyOf(span);
    nodes.forEach((element, index) => element.setAttribute("aria-pressed", String(spans[index] === span)));
    for (const arc of arcs) arc.setAttribute("opacity", arc.dataset.ends.split(" ").includes(key) ? 1 : 0.12);
    for (const [pos, element] of text.tokens) element.classList.toggle("target", span.first_pos <= pos && pos <= span.last_pos);
    const carried = shown.filter((edge) => edge.target === key).sort((a, b) => b.size - a.size);
    const carries = shown.filter((edge) => edge.source === key).sort((a, b) => b.size - a.size);
    fill(told, h("h3", {}, spanName(span)), list("carried by", carried, (edge) => edge.source), list("carries", carries, (edge) => edge.target),
      span.explained !== null && span.explained !== undefined && h("p.hint", {}, `Explained as a whole: ${plain(span.explained)} logits, of them ${plain(span.own ?? 0)} from its own tokens.`));
    say(`${spanName(span)}: carried by ${carried.length}, carries ${carries.length}`);
  }

  function list(title, found, other) {
    return found.length > 0 && h("ul.list", {}, found.map((edge) => h("li", {}, h("span.hint", {}, title), h("span", {}, spanName(spans[at.get(other(edge))])), h("span", { class: edge.down ? "down-ink" : "up-ink" }, tell(edge)))));
  }
}

function node(span, y, left, onChoose) {
  const press = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    onChoose();
  };
  return s("g", { class: "node", role: "button", tabindex: 0, "aria-pressed": "false", "aria-label": `${spanName(span)}: ${cut(span.text, 120)}`, on: { click: onChoose, keydown: press } },
    s("rect", { x: left, y: y - 22, width: WIDTH - left - 4, height: 44, rx: 8 }),
    s("text", { class: "soft", x: left + 12, y: y - 6 }, spanName(span)),
    s("text", { x: left + 12, y: y + 12 }, cut(span.text, 46)));
}
