// The list of traces: the newest first, filtered, a page at a time; text is looked for in every trace.

import { ask, catalogue, query } from "../api.js";
import { fill, h, say } from "../dom.js";
import { cut, day, tiny, whole } from "../format.js";
import { choice, textField } from "../parts/controls.js";
import { link, note } from "../route.js";

const PAGE = 50;

export async function show(place, { params }) {
  const state = { text: params.text ?? "", model_id: params.model_id ?? "", dataset: params.dataset ?? "", split: params.split ?? "" };
  const [stats] = await Promise.all([query("stats"), catalogue()]);
  const models = [...new Set(stats.rows.map((row) => row.model_id))];
  const total = stats.rows.reduce((sum, row) => sum + row.traces, 0);
  const outputs = stats.rows.reduce((sum, row) => sum + row.outputs, 0);
  const list = h("div");

  const change = (part) => {
    Object.assign(state, part);
    note(state);
    load(list, state);
  };
  fill(place,
    h("h1", {}, "Traces"),
    h("p.lead", {}, `${whole(total)} traces with ${whole(outputs)} explained predictions. Open one, then click a token to see which earlier tokens drove it.`),
    h("div.tools", {},
      textField("Text that it holds", state.text, (text) => change({ text }), { type: "search", size: 30 }),
      models.length > 1 && choice("Model", [["", "all"], ...models.map((name) => [name, name])], state.model_id, (model_id) => change({ model_id })),
      textField("Data set", state.dataset, (dataset) => change({ dataset }), { size: 12 }),
      textField("Split", state.split, (split) => change({ split }), { size: 10 })),
    list);
  await load(list, state);
}

async function load(list, state, cursor = null, table = null) {
  const filters = Object.entries(state).filter(([name, value]) => value && name !== "text");
  const found = state.text
    ? await query("search_text", { ...Object.fromEntries(filters), text: state.text, k: 200 })
    : await ask(`api/traces?${new URLSearchParams([...filters, ["limit", PAGE], ...(cursor ? [["cursor", cursor]] : [])])}`);
  const body = table ?? h("tbody");
  body.append(...found.rows.map(row));
  if (!table) {
    const head = ["Text", "Item", "Model", "Made (UTC)", "Tokens", "Predictions", "Closure error"];
    fill(list, found.rows.length
      ? h("div.panel", {}, h("div.scroll", { tabIndex: 0, role: "region", "aria-label": "Traces" }, h("table", {},
          h("caption.unseen", {}, "Traces, newest first"),
          h("thead", {}, h("tr", {}, head.map((name, index) => h("th", { class: index > 3 ? "number" : "", scope: "col" }, name)))), body)), h("p.more"))
      : h("p.hint", {}, "Nothing is found. Load an archive with: tracestore load"));
    say(`${found.rows.length} traces`);
  }
  const more = list.querySelector(".more");
  if (more) fill(more, found.next && h("button.plain", { type: "button", on: { click: () => load(list, state, found.next, body) } }, "Show more"));
}

function row(trace) {
  return h("tr", {},
    h("td.long", { title: cut(trace.text, 400) }, h("a", { href: link("trace", trace.trace_id) }, cut(trace.text, 80) || `trace ${trace.trace_id.slice(0, 8)} (text was not kept)`)),
    h("td", {}, trace.item_id ?? "–"), h("td", {}, trace.model_id), h("td", {}, day(trace.created_at)),
    h("td.number", {}, whole(trace.n_tokens)), h("td.number", {}, whole(trace.outputs)), h("td.number", {}, tiny(trace.closure)));
}
