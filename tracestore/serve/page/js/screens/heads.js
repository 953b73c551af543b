// Which heads carry influence: in one prediction (the relevance of every head), or over a selection of traces (their mean share).
// A click on a head lists the predictions in which it matters most.

import { output as askOutput, query, trace as askTrace } from "../api.js";
import { fill, h, say } from "../dom.js";
import { cut, headName, percent, signed, whole } from "../format.js";
import { choice, key, switcher, textField } from "../parts/controls.js";
import { heatMap } from "../parts/heat.js";
import { outputName } from "../parts/prediction.js";
import { barCell } from "../parts/table.js";
import { link, note } from "../route.js";

const MOST_HEADS = 10_000;

export async function show(place, { id, params }) {
  const stats = (await query("stats")).rows;
  if (!stats.length) return void fill(place, h("h1", {}, "Heads"), h("p.hint", {}, "The store is empty."));
  const view = new HeadsView(place, stats, id, params);
  await view.draw();
}

class HeadsView {
  constructor(place, stats, id, params) {
    this.place = place;
    this.models = [...new Set(stats.map((row) => row.model_id))];
    this.trace = id;
    this.over = id && params.over !== "selection" ? "prediction" : "selection";
    this.filters = { model_id: params.model_id ?? "", text: params.text ?? "", dataset: params.dataset ?? "", split: params.split ?? "", correct: params.correct ?? "" };
    this.output = params.output ?? "";
    this.chosen = params.layer !== undefined && params.head !== undefined ? { layer: Number(params.layer), head: Number(params.head) } : null;
    this.controls = h("div.tools");
    this.map = h("section.panel", { "aria-label": "Layer by head" });
    this.side = h("section.panel", { "aria-label": "Predictions of a head" });
  }

  async draw() {
    fill(this.place, h("h1", {}, "Heads"),
      h("p.lead", {}, "Which attention heads carried influence: layers upward, heads across. Choose a head to see the predictions in which it matters most."),
      this.controls, h("div.three", {}, this.map, this.side));
    await this.refresh();
  }

  async change(part) {
    Object.assign(this.filters, part);
    note(this.filters);
    await this.refresh();
  }

  async refresh() {
    if (this.over === "prediction") await this.ofPrediction();
    else await this.ofSelection();
    if (this.chosen) await this.choose(this.chosen.layer, this.chosen.head);
    else fill(this.side, h("h2", {}, "Predictions of a head"), h("p.hint", {}, "No head is chosen yet."));
  }

  switch() {
    return this.trace && switcher("Over", [["prediction", "This prediction"], ["selection", "A selection of traces"]], this.over, (over) => {
      this.over = over;
      note({ over });
      this.refresh();
    });
  }

  async ofPrediction() {
    const data = await askTrace(this.trace);
    const output = data.outputs.find((one) => one.output_id === this.output) ?? data.outputs.at(-1);
    if (!output) {
      this.over = "selection";
      return this.ofSelection();
    }
    const [{ head_vector: vector }, { rows }] = await Promise.all([askOutput(output.output_id), askOutput(output.output_id, "/heads")]);
    const { n_layers: layers, n_heads: heads, model_id: model } = data.trace;
    const summaries = new Map(rows.map((row) => [`${row.layer}.${row.head}`, row]));
    this.model = model;
    fill(this.controls, this.switch(), data.outputs.length > 1 && choice("Prediction", data.outputs.map((one) => [one.output_id, `${one.pos}: ${outputName(one)}`]), output.output_id, (chosen) => {
      this.output = chosen;
      note({ output: chosen });
      this.refresh();
    }));
    const value = (layer, head) => vector[layer * heads + head];
    this.drawMap(`Relevance for ${outputName(output)}`, `Signed: what each head added to the explained ${output.explained.toFixed(2)} logits, summed over positions.`, true, {
      layers, heads, value,
      facts: (layer, head) => {
        const row = summaries.get(`${layer}.${head}`);
        return [headName(layer, head), [["relevance", signed(value(layer, head))], ["share of |value|", row ? percent(row.share) : "not among the 64 largest"], ...(row ? [["looks at", `${cut(row.top_source_text, 20)} ← ${cut(row.top_query_text, 20)}`]] : [])]];
      },
    });
    return undefined;
  }

  async ofSelection() {
    const model = this.filters.model_id || this.models[0];
    this.model = model;
    const { rows } = await query("heads_across", { ...this.filters, model_id: model, k: MOST_HEADS });
    const found = new Map(rows.map((row) => [`${row.layer}.${row.head}`, row]));
    const { n_layers: layers, n_heads: heads } = await this.shape(model, rows);
    fill(this.controls, this.switch(),
      this.models.length > 1 && choice("Model", this.models.map((name) => [name, name]), model, (model_id) => this.change({ model_id })),
      textField("Predicted token", this.filters.text, (text) => this.change({ text }), { size: 12, placeholder: " Paris" }),
      textField("Data set", this.filters.dataset, (dataset) => this.change({ dataset }), { size: 10 }),
      textField("Split", this.filters.split, (split) => this.change({ split }), { size: 8 }),
      choice("Answers", [["", "all"], ["true", "right"], ["false", "wrong"]], this.filters.correct, (correct) => this.change({ correct })));
    const outputs = Math.max(0, ...rows.map((row) => row.outputs));
    this.drawMap("Mean share over the selection", rows.length ? `Of the influence that heads carried; heads are counted where they are among the 64 largest (at most ${whole(outputs)} predictions).` : "No prediction passes these filters.", false, {
      layers, heads,
      value: (layer, head) => found.get(`${layer}.${head}`)?.share_mean ?? 0,
      facts: (layer, head) => {
        const row = found.get(`${layer}.${head}`);
        return [headName(layer, head), row ? [["mean share", percent(row.share_mean, 2)], ["largest", percent(row.share_max)], ["mean relevance", signed(row.relevance_mean)], ["predictions", whole(row.outputs)], ["as induction head", percent(row.induction_rate, 0)]] : [["among the 64 largest", "never"]]];
      },
    });
  }

  /** How many layers and heads the model has: from one of its traces. */
  async shape(model, rows) {
    const listed = await query("list_traces", { model_id: model, k: 1 });
    if (listed.rows.length) return (await askTrace(listed.rows[0].trace_id)).trace;
    return { n_layers: 1 + Math.max(0, ...rows.map((row) => row.layer)), n_heads: 1 + Math.max(0, ...rows.map((row) => row.head)) };
  }

  drawMap(title, told, isSigned, map) {
    fill(this.map, h("h2", {}, title), h("p.hint", {}, told), h("div.scroll", {}, heatMap({ ...map, signed: isSigned, label: title, chosen: this.chosen, onChoose: (layer, head) => this.choose(layer, head) })),
      key(isSigned));
  }

  async choose(layer, head) {
    this.chosen = { layer, head };
    note({ layer, head });
    const { rows } = await query("outputs_of_head", { ...(this.over === "selection" ? this.filters : {}), model_id: this.model, layer, head, k: 25 });
    const largest = Math.max(0, ...rows.map((row) => row.share));
    say(`${headName(layer, head)}: ${rows.length} predictions`);
    fill(this.side, h("h2", {}, `Where ${headName(layer, head)} matters most`),
      rows.length ? h("div.scroll", { tabIndex: 0, role: "region", "aria-label": "Predictions" }, h("table", {},
        h("caption.unseen", {}, `Predictions by the share of ${headName(layer, head)}`),
        h("thead", {}, h("tr", {}, ["text", "predicts", "share", "relevance"].map((name, index) => h("th", { class: index > 1 ? "number" : "", scope: "col" }, name)))),
        h("tbody", {}, rows.map((row) => h("tr", {},
          h("td.long", { title: cut(row.trace_text, 300) }, h("a", { href: link("trace", row.trace_id, { output: row.output_id }) }, cut(row.trace_text, 36) || row.trace_id.slice(0, 8))),
          h("td", {}, outputName({ ...row, gauge: "" })), barCell(row.share, largest, percent(row.share), false), h("td.number", { class: row.relevance < 0 ? "down-ink" : "up-ink" }, signed(row.relevance)))))))
        : h("p.hint", {}, "It is among the 64 largest heads of no prediction in the selection."));
  }
}
