// Two traces side by side, each with a prediction of its own: what drove the one and not the other.

import { ask, output as askOutput, trace as askTrace } from "../api.js";
import { paint, scaleOf } from "../colour.js";
import { fill, h } from "../dom.js";
import { bare, cut, percent, signed } from "../format.js";
import { choice, key } from "../parts/controls.js";
import { headList, outputName } from "../parts/prediction.js";
import { barCell } from "../parts/table.js";
import { textView } from "../parts/text.js";
import { link, note } from "../route.js";

const LISTED = 200;
const ROWS = 10;

export async function show(place, { params }) {
  const { rows } = await ask(`api/traces?limit=${LISTED}`);
  if (!rows.length) return void fill(place, h("h1", {}, "Side by side"), h("p.hint", {}, "The store is empty."));
  const first = params.a ?? rows[0].trace_id;
  const sides = [new Side("a", "Left", first, params.a_output, rows), new Side("b", "Right", params.b ?? partner(rows, first), params.b_output, rows)];
  fill(place, h("h1", {}, "Side by side"),
    h("p.lead", {}, "Two traces: another prompt, another variant, another model. The colours of each side have a scale of their own."),
    h("div.two", {}, sides.map((side) => side.element)), key(true));
  await Promise.all(sides.map((side) => side.load()));
}

/** A likely counterpart: the same prompt's other variant stands beside it in the list. */
function partner(rows, first) {
  const at = rows.findIndex((row) => row.trace_id === first);
  return (rows[at + 1] ?? rows[at - 1] ?? rows[0]).trace_id;
}

class Side {
  constructor(name, title, trace, output, rows) {
    Object.assign(this, { name, title, trace, output, rows });
    this.element = h("section.panel", { "aria-label": title });
  }

  async load() {
    const data = await askTrace(this.trace);
    const output = data.outputs.find((one) => one.output_id === this.output) ?? data.outputs.at(-1);
    const picks = h("div.tools", {},
      choice(`${this.title}: trace`, this.options(data.trace), this.trace, (trace) => this.change({ trace, output: "" })),
      data.outputs.length > 1 && choice("Prediction", data.outputs.map((one) => [one.output_id, `${one.pos}: ${outputName(one)}`]), output.output_id, (chosen) => this.change({ output: chosen })));
    if (!output) return void fill(this.element, picks, h("p.hint", {}, "No prediction of this trace was explained."));
    const [drivers, heads] = await Promise.all([askOutput(output.output_id, "/drivers?limit=10000&by=score"), askOutput(output.output_id, "/heads")]);
    const text = textView(data, { label: `${this.title} text`, onToken: () => { location.hash = link("trace", this.trace, { output: output.output_id }); } });
    const scale = scaleOf(drivers.rows, (row) => row.score);
    for (const row of drivers.rows) if (!row.sink) paint(text.tokens.get(row.pos), row.score, scale, true);
    for (const [pos, element] of text.tokens) if (pos > output.pos) element.classList.add("later");
    const best = drivers.rows.slice(0, ROWS);
    fill(this.element, picks,
      h("p", {}, h("span.tag", {}, data.trace.model_id), " ", h("span.tag", {}, `method ${data.trace.method}`)),
      text.element,
      h("p", {}, "→ ", h("b", {}, bare(output.text, output.token_id)), ` with probability ${percent(output.prob)}, explained ${output.explained.toFixed(2)} logits`),
      h("h3", {}, "Which earlier tokens drove it"),
      h("table", {}, h("caption.unseen", {}, "Drivers"), h("tbody", {}, best.map((row) => h("tr", {},
        h("td", {}, h("span.piece", {}, bare(row.text, row.token_id))), h("td.number", {}, row.pos),
        row.sink ? h("td.number", {}, signed(row.score)) : barCell(row.score, scale, signed(row.score), true), h("td.number", {}, row.sink ? "sink" : percent(row.share)))))),
      h("h3", {}, "Through which heads"), headList(heads.rows, data));
    return undefined;
  }

  options(trace) {
    const listed = this.rows.map((row) => [row.trace_id, `${row.item_id ? `${row.item_id}: ` : ""}${cut(row.text, 46) || row.trace_id.slice(0, 8)} (${row.model_id})`]);
    return listed.some(([id]) => id === trace.trace_id) ? listed : [[trace.trace_id, cut(trace.text, 60)], ...listed];
  }

  async change(part) {
    Object.assign(this, part);
    note({ [this.name]: this.trace, [`${this.name}_output`]: this.output ?? "" });
    await this.load();
  }
}
