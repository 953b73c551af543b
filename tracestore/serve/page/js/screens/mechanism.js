// How one prediction came about: tokens across, layers upward, heads as nodes, the exact paths on top.

import { output as askOutput, trace as askTrace } from "../api.js";
import { fill, h, say } from "../dom.js";
import { bare, percent, plain, signed, whole } from "../format.js";
import { downloadPng, downloadSvg } from "../mechanism/download.js";
import { layOut } from "../mechanism/layout.js";
import { Graph } from "../mechanism/model.js";
import { Stage } from "../mechanism/stage.js";
import { choice, field } from "../parts/controls.js";
import { motifName, outputName } from "../parts/prediction.js";
import { link, note } from "../route.js";

const AT_FIRST = 260;
const LISTED = 14;

export async function show(place, { id, params }) {
  const data = await askTrace(id);
  const stored = data.outputs.filter((output) => output.mechanism);
  const output = data.outputs.find((one) => one.output_id === params.output) ?? stored.at(-1);
  if (!output) {
    fill(place, h("h1", {}, "Mechanism"), h("p.problem", {}, "This store holds the trace without its mechanism. Add it with: tracestore store attach"));
    return undefined;
  }
  const [graph, paths] = await Promise.all([askOutput(output.output_id, "/graph"), askOutput(output.output_id, "/paths")]);
  const view = new MechanismView(place, data, output, graph, paths.rows, params);
  view.draw();
  return () => view.stage.leave();
}

class MechanismView {
  constructor(place, data, output, given, paths, params) {
    Object.assign(this, { place, data, output, given, paths });
    this.graph = new Graph(given);
    this.share = Number(params.share) || this.graph.shareFor(AT_FIRST);
    this.path = this.paths.find((path) => String(path.rank) === params.path) ?? null;
    this.chosen = null;
    this.expanded = new Set();
    this.tokens = new Map(data.tokens.map((token) => [token.pos, token]));
    this.tokens.set("output", bare(output.text, output.token_id));
    this.stage = new Stage({ label: "The mechanism as a drawing; the list beside it holds the same", onChoose: (node) => this.choose(node) });
    this.panel = h("aside.panel.side", { "aria-label": "What is shown", tabIndex: 0 });
    this.told = h("output", { for: "share" });
  }

  draw() {
    const { data, output } = this;
    const slider = h("input", {
      type: "range", id: "share", min: 1, max: 100, value: Math.round(100 * this.share),
      on: { input: () => this.changeShare(slider.value / 100), change: () => note({ share: this.share.toFixed(2) }) },
    });
    const name = `mechanism-${output.output_id.replaceAll(":", "-")}`;
    const button = (text, press, title) => h("button.plain", { type: "button", title: title ?? "", on: { click: press } }, text);
    fill(this.place,
      h("div.headline", {}, h("h1", {}, "How ", h("span.piece", {}, bare(output.text, output.token_id)), " came about"),
        h("span.tag", {}, data.trace.model_id), h("span.tag", {}, `method ${data.trace.method}`), h("a", { href: link("trace", data.trace.trace_id, { output: output.output_id }) }, "back to the text")),
      h("div.tools", {},
        data.outputs.length > 1 && choice("Prediction", data.outputs.filter((one) => one.mechanism).map((one) => [one.output_id, `${one.pos}: ${outputName(one)}`]), output.output_id,
          (chosen) => { location.hash = link("mechanism", data.trace.trace_id, { output: chosen }); }),
        field("Share of the weight shown", slider), this.told,
        button("PNG", () => downloadPng(this.scene(), name), "download as a picture"), button("SVG", () => downloadSvg(this.scene(), name), "download as a drawing")),
      h("div.columns", {}, h("div", {}, this.stage.element, this.legend()), this.panel));
    this.stage.element.append(h("div.over", {}, button("+", () => this.stage.grow(1.3), "closer"), button("−", () => this.stage.grow(1 / 1.3), "further away"), button("Fit", () => this.stage.fit())));
    this.stage.onSize = () => {
      this.relay();
      this.refresh(true);
    };
    this.relay();
    this.refresh(true);
  }

  legend() {
    return h("div.key", {}, h("span", {}, h("i.swatch.up"), "raises"), h("span", {}, h("i.swatch.down"), "lowers"),
      h("span", {}, "width: square root of |weight|; round: head; square: MLP; small dots: residual stream; dashes: keys, dots: queries"));
  }

  relay() {
    const { trace } = this.data;
    this.stops = this.path ? stopsOf(this.path) : null;
    for (const stop of this.stops ?? []) this.ensure(stop);
    const size = this.stage.size();
    this.layout = layOut([...this.graph.nodes.values()], { layers: trace.n_layers, heads: trace.n_heads, ...size });
  }

  /** A hop of a path may not be among the edges that were given: it gets a node all the same. */
  ensure(name) {
    if (this.graph.nodes.has(name)) return;
    const found = /^(?:L(\d+)\.(?:h(\d+)|mlp|pre|mid)|emb|out)@(\d+)$/.exec(name);
    if (!found) return;
    const [, layer, head, pos] = found;
    const kind = head !== undefined ? "Head" : name.startsWith("emb") ? "Token" : name.startsWith("out") ? "Output" : name.includes("mlp") ? "Mlp" : "State";
    this.graph.nodes.set(name, { id: name, kind, title: name.split("@")[0], layer: layer ? Number(layer) : null, head: head ? Number(head) : null, pos: Number(pos), site: name.includes("mid") ? "mid" : "pre", mainstat: null });
  }

  scene() {
    const edges = this.graph.shown(this.share);
    const chosenEdges = this.chosen ? new Set((this.graph.touching.get(this.chosen) ?? []).map((edge) => edge.id)) : null;
    const extra = chosenEdges ? [...(this.graph.touching.get(this.chosen) ?? [])] : [];
    const all = extra.length ? [...new Set([...edges, ...extra])] : edges;
    return { place: this.layout, edges: all, largest: this.graph.largest, tokens: this.tokens, chosen: this.chosen, chosenEdges, path: this.stops };
  }

  refresh(fit = false) {
    const scene = this.scene();
    this.stage.show(scene, fit);
    this.told.textContent = `${percent(this.share, 0)}: ${whole(scene.edges.length)} of ${whole(this.given.edges_stored)} edges`;
    this.drawPanel(scene);
  }

  changeShare(share) {
    this.share = share;
    const scene = this.scene();
    this.stage.show(scene);
    this.told.textContent = `${percent(share, 0)}: ${whole(scene.edges.length)} of ${whole(this.given.edges_stored)} edges`;
  }

  choose(node) {
    this.chosen = node;
    this.refresh();
    if (node) say(`${node} chosen`);
  }

  choosePath(path) {
    this.path = this.path === path ? null : path;
    note({ path: this.path?.rank ?? "" });
    this.relay();
    this.refresh();
  }

  async expand(node) {
    this.graph.add(await askOutput(this.output.output_id, `/graph?expand=${encodeURIComponent(node)}`));
    this.expanded.add(node);
    this.relay();
    this.refresh();
  }

  drawPanel() {
    const { given } = this;
    const nodes = this.chosen ? this.nodePart(this.graph.nodes.get(this.chosen)) : this.topNodes();
    fill(this.panel, this.path && !this.chosen ? [this.pathPart(), nodes] : [nodes, this.pathPart()],
      h("h3", {}, "What is given"),
      h("p.hint", {}, given.truncated
        ? `${whole(given.edges.length)} of ${whole(given.edges_stored)} stored edges, with ${percent(given.attention_share, 0)} of the attention weight. Choose a node and expand it for the rest of its edges.`
        : "Every stored edge."));
  }

  topNodes() {
    const rows = [...this.graph.nodes.values()].filter((node) => node.kind === "Head" || node.kind === "Mlp")
      .sort((a, b) => Math.abs(b.mainstat) - Math.abs(a.mainstat)).slice(0, LISTED);
    return [h("h2", {}, "Largest heads and MLPs"), h("p.hint", {}, "Click a node, here or in the drawing, for its edges."),
      h("ul.list", {}, rows.map((node) => h("li", {},
        h("button.quiet", { type: "button", "aria-pressed": String(node.id === this.chosen), on: { click: () => this.choose(node.id) } }, this.nodeName(node)), number(node.mainstat))))];
  }

  nodePart(node) {
    const edges = this.graph.touching.get(node.id) ?? [];
    const inward = edges.filter((edge) => edge.target === node.id);
    const outward = edges.filter((edge) => edge.source === node.id);
    return [h("h2", {}, this.nodeName(node)),
      h("dl.facts", {}, h("dt", {}, "relevance"), h("dd", {}, node.mainstat === null ? "–" : `${plain(node.mainstat)} logits`)),
      this.edgePart("Comes in from", inward, (edge) => edge.source), this.edgePart("Goes out to", outward, (edge) => edge.target),
      h("p", {},
        !this.expanded.has(node.id) && this.given.truncated && h("button.plain", { type: "button", on: { click: () => this.expand(node.id) } }, "Expand: all its edges"), " ",
        h("button.quiet", { type: "button", on: { click: () => this.choose(null) } }, "Back to the largest"))];
  }

  edgePart(title, edges, other) {
    const sorted = [...edges].sort((a, b) => Math.abs(b.mainstat) - Math.abs(a.mainstat)).slice(0, LISTED);
    return sorted.length > 0 && [h("h3", {}, title), h("ul.list", {}, sorted.map((edge) => {
      const node = this.graph.nodes.get(other(edge));
      return h("li", {}, h("button.quiet", { type: "button", on: { click: () => this.choose(node.id) } }, this.nodeName(node)), h("span.hint", {}, edge.type.toLowerCase()), number(edge.mainstat));
    }))];
  }

  pathPart() {
    if (!this.paths.length) return null;
    return [h("h2", {}, "Exact paths"), h("ul.list", {}, this.paths.slice(0, LISTED).map((path) => h("li", {},
      h("button.quiet", { type: "button", "aria-pressed": String(path === this.path), on: { click: () => this.choosePath(path) } },
        h("span.piece", {}, this.tokenAt(path.source_pos)), " ", motifName(path.motif)), number(path.weight))))];
  }

  tokenAt = (pos) => bare(this.tokens.get(pos)?.text, this.tokens.get(pos)?.token_id);
  nodeName = (node) => [`${node.title} `, node.kind === "Output" ? this.tokens.get("output") : h("span.piece", {}, this.tokenAt(node.pos)), h("span.hint", {}, ` ${node.pos}`)];
}

/** The nodes that an exact path passes: its hops, and where it leaves the residual stream for a head and comes back to it. */
function stopsOf({ hops }) {
  const stops = [];
  let pos = null;
  for (const hop of hops.split(">")) {
    const name = hop.replace(/:[A-Z]+@/, "@"); // a head's hop also says by which way it was entered
    const head = /^L(\d+)\.h\d+@(\d+)$/.exec(name);
    if (head) stops.push(`L${head[1]}.pre@${pos}`, name, `L${head[1]}.mid@${head[2]}`);
    else stops.push(name);
    pos = name.split("@")[1];
  }
  return stops;
}

const number = (value) => h("span", { class: value < 0 ? "down-ink" : "up-ink" }, signed(value));
