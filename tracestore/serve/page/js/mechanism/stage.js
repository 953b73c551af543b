// The canvas: panned and zoomed, drawn once a frame, nodes found under the pointer.

import { h } from "../dom.js";
import { percent, signed } from "../format.js";
import { hideTip, showTip } from "../tooltip.js";
import { canvasPen, draw, palette } from "./draw.js";
import { LEAST_SCALE } from "./layout.js";

export class Stage {
  constructor({ label, onChoose }) {
    this.canvas = h("canvas", { role: "img", "aria-label": label });
    this.element = h("div.stage.high", {}, this.canvas);
    this.onChoose = onChoose;
    this.scene = null;
    this.onSize = null;
    this.unfitted = false; // the screen has no size before it is in the page
    this.canvas.width = 0;
    this.turn = d3.zoomIdentity;
    this.zoom = d3.zoom().scaleExtent([0.05, 6]).on("zoom", (event) => {
      this.turn = event.transform;
      this.paint();
    });
    d3.select(this.canvas).call(this.zoom).on("dblclick.zoom", null);
    this.canvas.addEventListener("click", (event) => this.onChoose(this.nodeAt(event)?.id ?? null));
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.canvas.addEventListener("pointerleave", hideTip);
    this.sized = new ResizeObserver(() => this.resize());
    this.sized.observe(this.element);
    this.dressed = () => this.paint();
    window.addEventListener("dressed", this.dressed);
  }

  leave() {
    this.sized.disconnect();
    window.removeEventListener("dressed", this.dressed);
  }

  /** The room that a layout may fill. */
  size() {
    const { width, height } = this.element.getBoundingClientRect();
    return { width: width || 900, height: height || 600 };
  }

  resize() {
    const ratio = devicePixelRatio || 1;
    const { width, height } = this.element.getBoundingClientRect();
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    this.onSize?.(); // the layout fills the room that there is

  }

  /** Show a scene; `fit`: also bring all of it (or its width) into view. */
  show(scene, fit = false) {
    this.scene = scene;
    const ends = new Set(scene.edges.flatMap((edge) => [edge.source, edge.target]));
    this.tree = d3.quadtree([...ends].map((id) => scene.place.nodes.get(id)).filter(Boolean), (node) => node.x, (node) => node.y);
    this.unfitted ||= fit;
    if (this.unfitted && this.canvas.width) this.fit();
    this.paintNow();
  }

  fit() {
    this.unfitted = false;
    const { width, height } = this.size();
    const { place } = this.scene;
    const scale = Math.max(LEAST_SCALE, Math.min(1, width / place.width, height / place.height));
    const room = width - scale * place.width;
    const across = room < 0 ? room : room / 2; // what is wider than the screen is shown from its end, where the output is
    d3.select(this.canvas).call(this.zoom.transform, d3.zoomIdentity.translate(across, height - scale * place.height).scale(scale));
  }

  grow(factor) {
    d3.select(this.canvas).call(this.zoom.scaleBy, factor);
  }

  /** Draw at the next frame, once however often it is asked for. */
  paint() {
    this.asked ??= requestAnimationFrame(() => this.paintNow());
  }

  paintNow() {
    if (this.asked) cancelAnimationFrame(this.asked);
    this.asked = null;
    if (!this.scene || !this.canvas.width) return;
    const context = this.canvas.getContext("2d");
    const ratio = devicePixelRatio || 1;
    const colours = palette();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = colours.ground;
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    context.setTransform(ratio * this.turn.k, 0, 0, ratio * this.turn.k, ratio * this.turn.x, ratio * this.turn.y);
    const visible = [this.turn.invertX(0), this.turn.invertX(this.canvas.width / ratio)];
    draw(canvasPen(context), this.scene, colours, visible);
  }

  nodeAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = this.turn.invert([event.clientX - box.left, event.clientY - box.top]);
    return this.tree?.find(x, y, 10 / this.turn.k + 5);
  }

  hover(event) {
    const node = event.buttons ? null : this.nodeAt(event);
    this.canvas.style.setProperty("cursor", node ? "pointer" : "grab");
    if (!node) return hideTip();
    const value = this.scene.edges.find((edge) => edge.target === node.id && edge.type === "VALUE");
    const more = value ? [["largest attention shown", percent(value.attention)]] : [];
    const facts = node.kind === "Token" ? [] : [["relevance", `${signed(node.mainstat)} logits`], ...more];
    return showTip(`${node.title}, position ${node.pos}`, facts, event.clientX, event.clientY);
  }
}
