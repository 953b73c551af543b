// The panel beside a text: what was predicted, how sure the model was, what drove it, and what the numbers leave out.

import { h } from "../dom.js";
import { bare, headName, isNumber, percent, plain, quoted, shown, signed, tiny } from "../format.js";
import { link, traceOf } from "../route.js";

export const LITTLE_KEPT = 0.05;

export function predictionPanel(data, output) {
  const against = output.gauge === "foil" ? `against ${quoted(output.foil_text, output.foil_token_id)}` : output.gauge;
  const where = isNumber(output.first_pos) && output.first_pos !== output.pos ? `positions ${output.first_pos} to ${output.pos}` : `position ${output.pos}`;
  const others = data.outputs.filter((other) => other.pos === output.pos && other.output_id !== output.output_id);
  return [
    h("h2", {}, "Prediction"),
    h("p.big", {}, bare(output.text, output.token_id)),
    isNumber(output.prob) && h("div.prob", {}, h("span.meter", {}, h("i", { style: { width: `${100 * output.prob}%` } })), `probability ${percent(output.prob)}`),
    h("dl.facts", {},
      fact("rank among all tokens", output.vocab_rank ?? "–"),
      fact("right answer", output.correct === null ? "not judged" : output.correct ? "yes" : "no"),
      fact("logit", plain(output.logit)),
      fact(`explained (${against})`, plain(output.explained)),
      fact("read at", where),
      fact("biases", signed(output.bias)),
      fact("on the attention sink", percent(output.sink_mass, 0)),
      fact("attention edges kept", percent(output.attention_kept, 0)),
      fact("closure error", tiny(output.closure))),
    output.attention_kept < LITTLE_KEPT && h("p.problem", {}, "Not enough was kept to follow the mechanism; the numbers of tokens and heads are complete."),
    others.length > 0 && [h("h3", {}, "Alternatives stored at this position"), alternatives(others)],
  ];
}

function alternatives(others) {
  return h("ul.list", {}, others.map((other) => h("li", {},
    h("a", { href: link("trace", traceOf(other.output_id), { output: other.output_id }) }, outputName(other)), h("span", {}, percent(other.prob)))));
}

function fact(name, value) {
  return [h("dt", {}, name), h("dd", {}, String(value))];
}

/** Name an output in a list. */
export function outputName(output) {
  const foil = output.gauge === "foil" ? ` not ${quoted(output.foil_text, output.foil_token_id)}` : "";
  return `${quoted(output.text, output.token_id)}${foil}`;
}

/** The heads that carried most; those that read the sink most come last. */
export function headList(heads, data, most = 6) {
  const sinks = new Set(data.tokens.filter((token) => token.sink).map((token) => token.pos));
  const ordered = [...heads].sort((a, b) => sinks.has(a.top_source_pos) - sinks.has(b.top_source_pos) || b.share - a.share);
  return h("ul.list", {}, ordered.slice(0, most).map((head) => h("li", {},
    h("a", { href: link("heads", "", { layer: head.layer, head: head.head, model_id: data.trace.model_id }) }, headName(head.layer, head.head)),
    h("span", {}, h("span.piece", {}, bare(head.top_source_text)), " → ", h("span.piece", {}, bare(head.top_query_text))),
    h("span", { class: head.relevance < 0 ? "down-ink" : "up-ink" }, signed(head.relevance)))));
}

/** The largest exact paths: those that no unfinished path could outweigh. */
export function pathList(paths, data, output, most = 5) {
  if (!paths.length) return h("p.hint", {}, "No exact paths are stored for this prediction.");
  const texts = new Map(data.tokens.map((token) => [token.pos, token]));
  const largest = paths.slice(0, most);
  const certain = largest.filter((path) => Math.abs(path.weight) >= (output.path_largest_open ?? 0));
  return [h("ul.list", {}, certain.map((path) => h("li", {},
    h("a", { href: link("mechanism", traceOf(output.output_id), { output: output.output_id, path: path.rank }) }, shown(texts.get(path.source_pos)?.text, texts.get(path.source_pos)?.token_id)),
    h("span.hint", {}, motifName(path.motif)),
    h("span", { class: path.weight < 0 ? "down-ink" : "up-ink" }, signed(path.weight))))),
  certain.length < largest.length && h("p.hint", {}, `Not enough was kept for more: the search left a path of ${plain(output.path_largest_open)} logits unfinished.`)];
}

export const motifName = (motif) => motif.replace(/^emb>/, "").replace(/>?out$/, "").replaceAll(">", " › ") || "straight to the output";
