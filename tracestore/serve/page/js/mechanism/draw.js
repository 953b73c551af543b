// Drawing a mechanism: the same calls to a canvas for the screen, and to a recorder for SVG.

import { pageColour } from "../colour.js";
import { shown } from "../format.js";

const DASHES = { KEY: [6, 3], QUERY: [2, 3] };

export function palette() {
  return {
    ground: pageColour("--panel"), line: pageColour("--line"), ink: pageColour("--ink"), soft: pageColour("--soft"),
    path: pageColour("--path"), raise: (alpha) => pageColour("--raise", alpha), lower: (alpha) => pageColour("--lower", alpha),
  };
}

export const widthOf = (edge, largest) => Math.max(0.5, Math.min(9, 5.5 * Math.sqrt(Math.abs(edge.mainstat) / largest)));

/** Give the corners of an edge: a curve between columns, a straight line within one. */
export function curveOf(a, b) {
  if (Math.abs(a.x - b.x) < 0.5) return null;
  const lift = Math.min(14, 0.2 * Math.abs(a.x - b.x));
  return [a.x, a.y - lift, b.x - 0.25 * (b.x - a.x), b.y + lift * 0.4];
}

/** Draw a scene: {place, edges, largest, tokens, chosen, chosenEdges, path}. `pen` is a canvas context or a recorder. */
export function draw(pen, scene, colours, visible = null) {
  const { place, edges, largest, chosenEdges, path } = scene;
  drawFrame(pen, scene, colours, visible);
  const faint = Boolean(chosenEdges || path);
  for (const edge of edges) if (!chosenEdges?.has(edge.id)) drawEdge(pen, edge, place, largest, colours, faint ? 0.12 : 0.55, visible);
  if (chosenEdges) for (const edge of edges) if (chosenEdges.has(edge.id)) drawEdge(pen, edge, place, largest, colours, 0.9, visible);
  if (path) drawPath(pen, path, place, colours);
  drawNodes(pen, scene, colours, visible);
}

function drawFrame(pen, { place, tokens }, colours, visible) {
  const every = place.row < 13 ? 4 : place.row < 22 ? 2 : 1;
  for (const { layer, y } of place.rows) {
    pen.line(44, y, place.width - 20, y, colours.line, layer % every ? 0.4 : 1, null);
    if (layer % every === 0) pen.text(`L${layer}`, 36, y - place.row / 2 + 4, colours.soft, 11, "end");
  }
  for (const { pos, x, y } of place.columns) {
    if (visible && (x < visible[0] - 60 || x > visible[1] + 60)) continue;
    const token = tokens.get(pos);
    pen.text(shown(token?.text, token?.token_id).trim().slice(0, 14) || "·", x, y + 6, colours.ink, 13, "middle", -0.5);
  }
}

function drawEdge(pen, edge, place, largest, colours, alpha, visible) {
  const a = place.nodes.get(edge.source);
  const b = place.nodes.get(edge.target);
  if (!a || !b || (visible && ((a.x < visible[0] && b.x < visible[0]) || (a.x > visible[1] && b.x > visible[1])))) return;
  const colour = edge.mainstat < 0 ? colours.lower(alpha) : colours.raise(alpha);
  pen.line(a.x, a.y, b.x, b.y, colour, widthOf(edge, largest), curveOf(a, b), DASHES[edge.type]);
}

function drawPath(pen, path, place, colours) {
  const stops = path.map((name) => place.nodes.get(name)).filter(Boolean);
  for (let index = 1; index < stops.length; index += 1) {
    const [a, b] = [stops[index - 1], stops[index]];
    pen.line(a.x, a.y, b.x, b.y, colours.path, 3.5, curveOf(a, b));
  }
  for (const stop of stops.filter((node) => node.kind !== "State")) pen.dot(stop.x, stop.y, Math.max(5, stop.r + 1.5), colours.path, colours.ground);
}

function drawNodes(pen, { place, edges, chosen, tokens }, colours, visible) {
  const ends = new Set(edges.flatMap((edge) => [edge.source, edge.target]));
  for (const id of ends) {
    const node = place.nodes.get(id);
    if (!node || (visible && (node.x < visible[0] - 20 || node.x > visible[1] + 20))) continue;
    if (node.kind === "State") pen.dot(node.x, node.y, node.r, colours.soft, null);
    else if (node.kind === "Mlp") pen.box(node.x, node.y, node.r, colours.soft, colours.ground);
    else pen.dot(node.x, node.y, node.r, node.mainstat < 0 ? colours.lower(1) : node.kind === "Token" ? colours.soft : colours.raise(1), colours.ground);
    if (node.kind === "Output") pen.text(tokens.get("output"), node.x + 12, node.y + 5, colours.ink, 14, "start");
  }
  const node = chosen && place.nodes.get(chosen);
  if (node) pen.ring(node.x, node.y, node.r + 4, colours.ink);
}

/** A pen over a canvas context. */
export function canvasPen(context) {
  return {
    line(x1, y1, x2, y2, colour, width, curve, dash) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.setLineDash(dash ?? []);
      context.beginPath();
      context.moveTo(x1, y1);
      if (curve) context.bezierCurveTo(...curve, x2, y2);
      else context.lineTo(x2, y2);
      context.stroke();
    },
    dot(x, y, r, fill, edge) {
      context.setLineDash([]);
      context.beginPath();
      context.arc(x, y, r, 0, 7);
      context.fillStyle = fill;
      context.fill();
      if (edge) this.outline(edge, 1);
    },
    box(x, y, r, fill, edge) {
      context.setLineDash([]);
      context.beginPath();
      context.rect(x - r, y - r, 2 * r, 2 * r);
      context.fillStyle = fill;
      context.fill();
      if (edge) this.outline(edge, 1);
    },
    ring(x, y, r, colour) {
      context.setLineDash([]);
      context.beginPath();
      context.arc(x, y, r, 0, 7);
      this.outline(colour, 2);
    },
    outline(colour, width) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke();
    },
    text(text, x, y, colour, size, align, angle = 0) {
      context.save();
      context.translate(x, y);
      context.rotate(angle);
      context.fillStyle = colour;
      context.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
      context.textAlign = angle ? "end" : align;
      context.fillText(text, 0, 0);
      context.restore();
    },
  };
}
