// Layer x head as a grid of cells, the last layer on top; arrow keys go from cell to cell.

import { paint } from "../colour.js";
import { h, rove } from "../dom.js";
import { headName } from "../format.js";
import { tipsFor } from "../tooltip.js";

/** `value(layer, head)` gives a number or null, `facts(layer, head)` what the tooltip says, `onChoose(layer, head)` is called on a click. */
export function heatMap({ layers, heads, value, signed, facts, onChoose, label, chosen }) {
  const numbers = [];
  for (let layer = 0; layer < layers; layer += 1) for (let head = 0; head < heads; head += 1) numbers.push(value(layer, head) ?? 0);
  const scale = Math.max(0, ...numbers.map(Math.abs));
  const grid = h("div.heat", { role: "grid", "aria-label": label, "aria-rowcount": layers, style: { "grid-template-columns": `2.4rem repeat(${heads}, minmax(18px, 44px))` } });
  for (let layer = layers - 1; layer >= 0; layer -= 1) {
    const row = h("div", { role: "row", style: { display: "contents" } }, h("div.axis", { role: "rowheader" }, `L${layer}`));
    for (let head = 0; head < heads; head += 1) row.append(cell(layer, head));
    grid.append(row);
  }
  const names = Array.from({ length: heads }, (_, head) => h("div.axis", { role: "columnheader" }, `H${head}`));
  grid.append(h("div", { role: "row", style: { display: "contents" } }, h("div.axis", { role: "columnheader" }, h("span.unseen", {}, "layer")), names));
  rove(grid, ".cell", () => heads);
  tipsFor(grid, ".cell", (element) => facts(Number(element.dataset.layer), Number(element.dataset.head)));
  return grid;

  function cell(layer, head) {
    const number = value(layer, head);
    const [name, told] = facts(layer, head);
    const isChosen = chosen?.layer === layer && chosen?.head === head;
    const element = h("button.cell", {
      type: "button", role: "gridcell", "aria-label": `${name}: ${told.map((pair) => pair.join(" ")).join(", ")}`, "aria-selected": String(isChosen),
      dataset: { layer, head },
      on: { click: () => {
        for (const other of grid.querySelectorAll('[aria-selected="true"]')) other.setAttribute("aria-selected", "false");
        element.setAttribute("aria-selected", "true");
        onChoose(layer, head);
      } },
    });
    paint(element, number ?? 0, scale, signed);
    return element;
  }
}

