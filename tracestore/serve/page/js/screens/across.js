// Questions over all prompts: every named query of the catalogue, its parameters as a form, its rows as a table with links.

import { catalogue, query } from "../api.js";
import { fill, h, say } from "../dom.js";
import { whole } from "../format.js";
import { field } from "../parts/controls.js";
import { resultTable } from "../parts/table.js";
import { link, note } from "../route.js";

// The questions that a reader most likely comes with, in the order of the screen; the rest of the catalogue follows.
const FIRST = ["drivers_across", "outputs_driven_by", "heads_across", "motifs_across", "compositions_across", "induction_heads", "correct_or_wrong", "correct_or_wrong_tokens", "compare_models", "compare_models_tokens", "compare_variants", "compare_variants_tokens", "outputs_of_head", "context_or_prompt", "span_drivers", "thought_chain", "sink_report", "disagreement", "unverified", "similar_mechanism"];
const NAMES = {
  drivers_across: "Drivers of a token", outputs_driven_by: "What a token drives", heads_across: "Heads", motifs_across: "Motifs", compositions_across: "Compositions",
  induction_heads: "Induction heads", correct_or_wrong: "Right or wrong: heads", correct_or_wrong_tokens: "Right or wrong: tokens", compare_models: "Models: heads", compare_models_tokens: "Models: tokens", compare_variants_tokens: "Variants: tokens", span_drivers: "Passages", thought_chain: "Chain of thought",
  compare_variants: "Variants: heads", outputs_of_head: "Predictions of a head", context_or_prompt: "Context or prompt", similar_mechanism: "Similar mechanism",
  sink_report: "Sinks", disagreement: "Estimate against knockout", unverified: "Not verified yet",
};
const OF_ONE = new Set(["output_uid"]);
const SOON = ["text", "token_id", "output_id", "trace_id", "layer", "head", "model_id", "dataset", "split", "correct", "k"];

export async function show(place, { id, params }) {
  const all = new Map((await catalogue()).map((one) => [one.name, one]));
  const names = [...FIRST.filter((name) => all.has(name)), ...[...all.keys()].filter((name) => !FIRST.includes(name))];
  const name = all.has(id) ? id : names[0];
  const found = all.get(name);
  const results = h("section", { "aria-label": "Answer" });
  const inputs = new Map(found.parameters.filter((one) => !OF_ONE.has(one.name)).map((one) => [one.name, input(one, params[one.name])]));
  const ordered = [...inputs.keys()].sort((a, b) => rank(a) - rank(b));
  const form = h("form.tools", { on: { submit: (event) => { event.preventDefault(); run(found, inputs, results); } } },
    ordered.filter((one) => SOON.includes(one)).map((one) => labelled(found, one, inputs)), h("button.main", { type: "submit" }, "Ask"));
  const rest = ordered.filter((one) => !SOON.includes(one));
  fill(place,
    h("h1", {}, "Across prompts"),
    h("ul.chips", { "aria-label": "Questions" }, names.slice(0, Math.max(FIRST.length, 8)).filter((one) => NAMES[one]).map((one) => chip(one, one === name)),
      h("li", {}, more(names.filter((one) => !NAMES[one]), name))),
    h("div.panel.question", {}, h("h2", {}, found.question), form,
      rest.length > 0 && h("details", { open: rest.some((one) => params[one]) }, h("summary", {}, "More filters"), h("div.tools", {}, rest.map((one) => labelled(found, one, inputs))))),
    results);
  const complete = found.parameters.every((one) => !one.required || params[one.name]) && found.one_of.every((group) => group.some((one) => params[one]));
  if (complete) await run(found, inputs, results);
  else fill(results, h("p.hint", {}, need(found)));
}

const rank = (name) => (SOON.includes(name) ? SOON.indexOf(name) : SOON.length);
const chip = (name, current) => h("li", {}, h("a.chip", { href: link("across", name), "aria-current": current ? "true" : null }, NAMES[name] ?? name));

function more(names, current) {
  const select = h("select", { "aria-label": "More questions", on: { change: () => { location.hash = link("across", select.value); } } },
    h("option", { value: "" }, "more …"), names.map((name) => h("option", { value: name, selected: name === current }, name.replaceAll("_", " "))));
  return select;
}

function need(found) {
  const wanted = [...found.parameters.filter((one) => one.required).map((one) => one.name), ...found.one_of.map((group) => group.filter((one) => !OF_ONE.has(one)).join(" or "))];
  return `Fill in ${wanted.join(", ").replaceAll("_", " ")}, then ask. A token's text begins with its blank: “ Paris”.`;
}

function labelled(found, name, inputs) {
  const { doc } = found.parameters.find((one) => one.name === name);
  const label = field(name.replaceAll("_", " "), inputs.get(name));
  label.title = doc;
  return label;
}

function input({ name, type, choices, default: standard, minimum, maximum }, given) {
  const value = given ?? standard ?? "";
  if (choices.length || type === "bool") {
    const options = choices.length ? choices : ["true", "false"];
    return h("select", { name }, [...(standard === null ? [""] : []), ...options].map((one) => h("option", { value: one, selected: one === String(value) }, one || "any")));
  }
  const number = type === "int" || type === "float";
  return h("input", { name, type: number ? "number" : "text", value: String(value), size: name === "output_id" ? 30 : 12, spellcheck: false, step: type === "float" ? "any" : 1, min: minimum ?? "", max: maximum ?? "" });
}

async function run(found, inputs, results) {
  const given = {};
  for (const one of found.parameters) {
    const value = inputs.get(one.name)?.value ?? "";
    if (value !== "") given[one.name] = one.type === "int" || one.type === "float" ? Number(value) : one.type === "bool" ? value === "true" : value;
  }
  note(Object.fromEntries(found.parameters.map((one) => [one.name, given[one.name] === one.default ? "" : given[one.name] ?? ""])));
  try {
    const { rows, truncated } = await query(found.name, given);
    say(`${rows.length} rows`);
    fill(results, h("div.panel", {}, rows.length
      ? resultTable(found.columns, rows, `${whole(rows.length)} rows${truncated ? ", cut off by the limit" : ""}. Point at a column's name for what it means.`)
      : h("p.hint", {}, "No rows: nothing in this store passes these filters.")));
  } catch (error) {
    fill(results, h("p.problem", { role: "alert" }, error.message));
  }
}
