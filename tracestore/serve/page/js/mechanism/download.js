// The drawing as a file: PNG from a canvas of its own at twice the size, SVG from the same drawing calls.

import { s } from "../dom.js";
import { canvasPen, draw, palette } from "./draw.js";

const LARGEST = 16_000; // pixels a side that browsers draw

export function downloadPng(scene, name) {
  const { width, height } = scene.place;
  const scale = Math.min(2, LARGEST / width, LARGEST / height);
  const canvas = document.createElement("canvas");
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  const colours = palette();
  context.fillStyle = colours.ground;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.scale(scale, scale);
  draw(canvasPen(context), scene, colours);
  canvas.toBlob((blob) => save(blob, `${name}.png`));
}

export function downloadSvg(scene, name) {
  const text = new XMLSerializer().serializeToString(svgOf(scene));
  save(new Blob([text], { type: "image/svg+xml" }), `${name}.svg`);
}

export function svgOf(scene) {
  const { width, height } = scene.place;
  const colours = palette();
  const root = s("svg", { xmlns: "http://www.w3.org/2000/svg", viewBox: `0 0 ${width} ${height}`, width, height, "font-family": "system-ui, sans-serif" },
    s("rect", { width, height, fill: colours.ground }));
  draw(svgPen(root), scene, colours);
  return root;
}

const near = (number) => Number(number.toFixed(2));

function svgPen(root) {
  const add = (name, given, ...children) => root.append(s(name, given, ...children));
  return {
    line(x1, y1, x2, y2, stroke, width, curve, dash) {
      const middle = curve ? `C${curve.map(near).join(" ")} ${near(x2)} ${near(y2)}` : `L${near(x2)} ${near(y2)}`;
      add("path", { d: `M${near(x1)} ${near(y1)}${middle}`, stroke, "stroke-width": near(width), fill: "none", "stroke-dasharray": dash?.join(" ") });
    },
    dot: (x, y, r, fill, stroke) => add("circle", { cx: near(x), cy: near(y), r, fill, stroke }),
    box: (x, y, r, fill, stroke) => add("rect", { x: near(x - r), y: near(y - r), width: 2 * r, height: 2 * r, fill, stroke }),
    ring: (x, y, r, stroke) => add("circle", { cx: near(x), cy: near(y), r, fill: "none", stroke, "stroke-width": 2 }),
    text(text, x, y, fill, size, align, angle = 0) {
      const turn = angle ? `rotate(${near((angle * 180) / Math.PI)} ${near(x)} ${near(y)})` : null;
      add("text", { x: near(x), y: near(y), fill, "font-size": size, "text-anchor": angle ? "end" : align, transform: turn }, text);
    },
  };
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
