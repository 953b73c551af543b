// One trace: click a token, and the earlier tokens are coloured by their influence on the prediction of it.

import { output as askOutput, query, trace as askTrace } from "../api.js";
import { MEASURES, SCOPES, measured, paint, scaleOf, unpaint } from "../colour.js";
import { fill, h, say } from "../dom.js";
import { bare, cut, day, percent, plain, quoted, shown, signed, signedPercent } from "../format.js";
import { key, switcher } from "../parts/controls.js";
import { headList, outputName, pathList, predictionPanel } from "../parts/prediction.js";
import { barCell } from "../parts/table.js";
import { spanName, textView } from "../parts/text.js";
import { link, note } from "../route.js";
import { hideTip, tipsFor } from "../tooltip.js";

const ROWS = 12;
const isSpan = (output) => output.first_pos !== null && output.first_pos !== undefined && output.first_pos !== output.pos;

export async function show(place, { id, params }) {
  const data = await askTrace(id);
  const view = new TraceView(place, data, params);
  view.draw();
  const first = data.outputs.find((output) => output.output_id === params.output) ?? data.outputs.at(-1);
  if (first) await view.explain(first);
}

class TraceView {
  constructor(place, data, params) {
    this.place = place;
    this.data = data;
    this.measure = params.measure in MEASURES ? params.measure : "drive";
    this.scope = params.scope in SCOPES ? params.scope : "direct";
    this.rows = [];
    this.output = null;
    this.addressed = true; // until the numbers say that this method has no address part
    this.text = textView(data, { label: "The text, token by token", onToken: (pos) => this.choose(pos) });
    this.byPredicted = new Map();
    for (const output of data.outputs) if (this.follows(output)) this.byPredicted.set(output.pos + 1, output);
    for (const pos of this.byPredicted.keys()) this.text.tokens.get(pos).classList.add("explained");
    this.key = h("div");
    this.note = h("p.hint", { role: "status" });
    this.panel = h("aside.panel.side", { "aria-label": "Prediction", tabIndex: 0 });
    this.controls = h("div.tools");
    this.coming = h("span.coming");
  }

  /** Is the explained token the one that follows in the text? */
  follows(output) {
    return !isSpan(output) && this.data.tokens[output.pos + 1]?.token_id === output.token_id;
  }

  /** The positions of what is explained, where it stands in the text: a token, or a span as a whole. */
  targets(output) {
    if (isSpan(output)) return new Set(Array.from({ length: output.pos - output.first_pos + 1 }, (_, index) => output.first_pos + 1 + index));
    return new Set(this.follows(output) ? [output.pos + 1] : []);
  }

  draw() {
    const { trace, items, outputs } = this.data;
    const last = this.text.element.querySelector(".block:last-child .run");
    last?.append(this.coming);
    const others = outputs.filter((output) => !this.follows(output) && !isSpan(output));
    fill(this.coming, others.map((output) => h("button.token", {
      type: "button", dataset: { output: output.output_id }, on: { click: () => this.explain(output) }, title: "a prediction that is not in the text",
    }, shown(output.text, output.token_id))));
    this.coming.hidden = !others.length;
    tipsFor(this.text.element, ".token[data-pos]", (element) => this.tip(Number(element.dataset.pos)));
    fill(this.place,
      h("div.headline", {},
        h("h1", {}, items[0]?.item_id ?? cut(trace.text, 60) ?? "Trace"),
        h("span.tag", {}, trace.model_id), h("span.tag", {}, `method ${trace.method}`), h("span.tag", {}, `${trace.n_tokens} tokens`),
        items.flatMap((item) => [item.dataset, item.split, item.variant, ...item.tags]).filter(Boolean).map((name) => h("span.tag", {}, name)),
        h("span.tag", {}, `${day(trace.created_at)} UTC`)),
      h("div.columns", {},
        h("section.panel", { "aria-label": "Text" },
          h("p.hint", {}, this.byPredicted.size || others.length
            ? "Click an underlined token (or a predicted one at the end): what came before it is coloured by its influence on the prediction of it."
            : "No prediction of this trace was explained."),
          this.controls, this.text.element, this.note, this.key),
        this.panel));
  }

  drawControls() {
    const why = this.addressed ? null : `method ${this.data.trace.method} has no address part: it takes the attention pattern as given; trace with method secant for it`;
    const measures = Object.entries(MEASURES).map(([name, { name: text }]) => [name, text, name === "address" ? why : null]);
    fill(this.controls,
      switcher("Influence", measures, this.measure, (measure) => this.change({ measure })),
      !MEASURES[this.measure].signed && switcher("Counted", Object.entries(SCOPES).map(([name, { name: text }]) => [name, text]), this.scope, (scope) => this.change({ scope })));
  }

  change(part) {
    const focused = document.activeElement?.value;
    Object.assign(this, part);
    note({ measure: this.measure, scope: this.scope });
    this.drawControls();
    this.colour();
    this.drawPanel();
    this.controls.querySelector(`input[value="${focused}"]`)?.focus();
  }

  choose(pos) {
    const output = this.byPredicted.get(pos);
    if (output) return this.explain(output);
    this.note.textContent = `${quoted(this.data.tokens[pos].text, this.data.tokens[pos].token_id)} was read, not explained: only underlined tokens have a prediction in this trace.`;
    return undefined;
  }

  async explain(output) {
    hideTip();
    this.output = output;
    note({ output: output.output_id });
    const id = output.output_id;
    const [drivers, heads, paths, knockouts, spans] = await Promise.all([
      askOutput(id, "/drivers?limit=10000"), askOutput(id, "/heads"), askOutput(id, "/paths?limit=10"),
      query("knockouts", { output_id: id, kind: "column", k: 10000 }),
      this.data.spans.length ? query("span_drivers", { output_id: id, k: 6 }) : { rows: [] },
    ]);
    if (this.output !== output) return; // another was chosen meanwhile
    this.rows = drivers.rows;
    this.heads = heads.rows;
    this.paths = paths.rows;
    this.spans = spans.rows;
    this.effects = new Map(knockouts.rows.filter((row) => Number.isInteger(row.pos)).reverse().map((row) => [row.pos, row])); // the newest of a token counts
    this.addressed = this.rows.some((row) => row.total_address > 0);
    if (!this.addressed && this.measure === "address") this.measure = "drive";
    this.note.textContent = "";
    this.drawControls();
    this.colour();
    this.drawPanel();
    const best = this.ranked()[0];
    say(`Prediction of ${quoted(output.text, output.token_id)}. ${best ? `Largest influence: ${quoted(best.text, best.token_id)}, ${this.spell(best)}.` : ""}`);
  }

  number = (row) => measured(row, this.measure, this.scope) ?? 0;
  write = (value) => (MEASURES[this.measure].share ? signedPercent : MEASURES[this.measure].signed ? signed : plain)(value);
  spell = (row) => this.write(this.number(row));
  size = (row) => (this.measure === "drive" ? row.drive : Math.abs(this.number(row))); // as rank_drive: what is driven against comes last
  ranked = () => [...this.rows].sort((a, b) => a.sink - b.sink || this.size(b) - this.size(a) || a.pos - b.pos);

  colour() {
    const byPos = new Map(this.rows.map((row) => [row.pos, row]));
    const scale = scaleOf(this.rows, this.number);
    const targets = this.targets(this.output);
    for (const [pos, element] of this.text.tokens) {
      const row = byPos.get(pos);
      element.classList.toggle("target", targets.has(pos));
      element.classList.toggle("later", !row && !targets.has(pos));
      if (row && !row.sink) paint(element, this.number(row), scale, MEASURES[this.measure].signed);
      else unpaint(element);
      const name = `${quoted(this.data.tokens[pos].text, this.data.tokens[pos].token_id)}, position ${pos}`;
      const told = row ? `, ${this.spell(row)}${row.sink ? ", attention sink" : ""}` : targets.has(pos) ? ", the explained prediction" : "";
      element.setAttribute("aria-label", name + told + (this.byPredicted.has(pos) ? ", explained" : ""));
    }
    for (const element of this.coming.querySelectorAll(".token")) {
      const chosen = element.dataset.output === this.output.output_id;
      element.classList.toggle("target", chosen);
      element.setAttribute("aria-pressed", String(chosen));
    }
    const { say: meaning, signed: isSigned, share } = MEASURES[this.measure];
    const counted = isSigned ? "" : ` ${SCOPES[this.scope].say}`;
    fill(this.key, key(isSigned), h("p.hint", {}, `Full colour: ${share ? percent(scale) : `${plain(scale)} logits of`} ${meaning}${counted}.`,
      share && " Mean of the token's shares of what attends to it here and everywhere, and of what hiding it is estimated to take away."));
  }

  tip(pos) {
    const row = this.rows.find((found) => found.pos === pos);
    const token = this.data.tokens[pos];
    const head = `${shown(token.text, token.token_id)}  (position ${pos})`;
    const predicted = this.byPredicted.get(pos);
    const own = predicted ? [["probability when predicted", percent(predicted.prob)], ["its rank", String(predicted.vocab_rank)]] : [];
    if (!row) return [head, own];
    return [head, [
      ["drive", signedPercent(row.drive)], ["rank", String(row.rank_drive)], ["signed score", signed(row.score)], ["value, into the prediction", plain(row.direct_value)], ["address, into the prediction", plain(row.direct_address)],
      ["total, everywhere", plain(row.total)], ["share of direct", row.sink ? "sink" : percent(row.share)], ["removal, estimated", signed(row.removal)], ...own,
    ]];
  }

  drawPanel() {
    const { output, data } = this;
    const rows = this.ranked().slice(0, ROWS);
    const largest = scaleOf(this.rows, this.number);
    const { signed: isSigned, share: byDrive } = MEASURES[this.measure];
    const [second, tell] = byDrive ? ["score", (row) => signed(row.score)] : ["share", (row) => (row.sink ? "sink" : percent(row.share))];
    fill(this.panel,
      data.outputs.length > 1 && this.outputChips(),
      predictionPanel(data, output),
      h("h3", {}, "Which earlier tokens drove it"),
      h("table", {},
        h("caption.unseen", {}, `The ${rows.length} tokens with the largest influence, attention sinks last`),
        h("thead", {}, h("tr", {}, ["token", "position", MEASURES[this.measure].name.toLowerCase(), second, ...(this.effects.size ? ["without it"] : [])].map((name, index) => h("th", { class: index ? "number" : "", scope: "col" }, name)))),
        h("tbody", {}, rows.map((row) => h("tr", {},
          h("td", {}, h("span.piece", {}, bare(row.text, row.token_id))), h("td.number", {}, row.pos),
          row.sink ? h("td.number", {}, this.spell(row)) : barCell(this.number(row), largest, this.spell(row), isSigned), h("td.number", {}, tell(row)),
          this.effects.size > 0 && this.effectCell(row))))),
      this.effects.size > 0 && h("p.hint", {}, this.agreement()),
      this.spans.length > 0 && [h("h3", {}, "From which passages"), h("ul.list", {}, this.spans.map((span) => h("li", { title: cut(span.text, 300) },
        h("span", {}, spanName(span)), h("span.hint", {}, percent(span.share)), h("span", { class: span.score < 0 ? "down-ink" : "up-ink" }, signed(span.score)))))],
      h("h3", {}, "Through which heads"), headList(this.heads, data),
      h("h3", {}, "Along which exact paths"), pathList(this.paths, data, output),
      output.mechanism && h("p", {}, h("a.button", { href: link("mechanism", data.trace.trace_id, { output: output.output_id }) }, "Look at the mechanism")));
  }

  /** What the model did without attention to a token, where that was tried: the trace says that it does the opposite of the score. */
  effectCell(row) {
    const found = this.effects.get(row.pos);
    if (!found) return h("td.number.hint", { title: "not tried" }, "–");
    const agrees = found.effect * row.score <= 0;
    return h("td.number", { class: found.effect < 0 ? "down-ink" : "up-ink", title: agrees ? "as the score says" : "against the score" }, signed(found.effect), agrees ? "" : " !");
  }

  agreement() {
    const tried = this.rows.filter((row) => this.effects.has(row.pos));
    const agree = tried.filter((row) => this.effects.get(row.pos).effect * row.score <= 0).length;
    return `Without it: measured change of the explained logit with attention to the token knocked out. It goes the way the score says for ${agree} of ${tried.length} tokens that were tried.`;
  }

  outputChips() {
    return [h("h3", {}, `${this.data.outputs.length} explained predictions`),
      h("ul.chips", {}, this.data.outputs.map((output) => h("li", {}, h("button.chip", {
        type: "button", "aria-pressed": String(output === this.output), on: { click: () => this.explain(output) },
      }, outputName(output)))))];
  }
}
