// Where every node of a mechanism stands: tokens across, layers upward.
//
// A position has a column. In a layer's row, from below: the residual stream before it, its heads side by side, the residual stream between
// (where there is one), the MLP, and the stream of the next layer. Tokens are below the first layer, outputs above the last.

/** Nothing is shrunk below this to fit: a label must stay readable. */
export const LEAST_SCALE = 0.55;
const ROW = { least: 15, most: 46 };
const COLUMN = { least: 34, most: 150 };
const MARGIN = { left: 54, right: 70, top: 44, bottom: 92 };

/** Give {nodes: Map(id -> node with x, y), width, height, columns: [{pos, x}], rows: [{layer, y}]}; it fills `width` and `height` where it can. */
export function layOut(nodes, { layers, heads, width, height: least }) {
  const positions = [...new Set(nodes.map((node) => node.pos))].sort((a, b) => a - b);
  const room = (width - MARGIN.left - MARGIN.right) / Math.max(1, positions.length);
  const column = Math.max(COLUMN.least, Math.min(COLUMN.most, room));
  const x = new Map(positions.map((pos, index) => [pos, MARGIN.left + column * (index + 0.5)]));
  const across = MARGIN.left + MARGIN.right + column * positions.length;
  const scale = Math.max(LEAST_SCALE, Math.min(1, width / across)); // what it will be shrunk by to fit: then there is more room upwards
  const row = Math.max(ROW.least, Math.min(ROW.most, (least / scale - MARGIN.top - MARGIN.bottom) / layers));
  const height = MARGIN.top + MARGIN.bottom + row * layers;
  const y = (layer) => height - MARGIN.bottom - row * layer;
  const placed = new Map();
  for (const node of nodes) placed.set(node.id, { ...node, ...place(node, x.get(node.pos), y, { layers, heads, row, column }) });
  return {
    nodes: placed,
    width: across,
    height,
    row,
    columns: positions.map((pos) => ({ pos, x: x.get(pos), y: height - MARGIN.bottom + 34 })),
    rows: Array.from({ length: layers }, (_, layer) => ({ layer, y: y(layer) })),
  };
}

function place(node, x, y, { layers, heads, row, column }) {
  switch (node.kind) {
    case "Token":
      return { x, y: y(0) + 18, r: 3.5 };
    case "Output":
      return { x, y: y(layers) - 20, r: 6 };
    case "State":
      return { x, y: y(node.layer) - (node.site === "mid" ? 0.55 * row : 0), r: 1.6 };
    case "Mlp":
      return { x: x + 0.16 * column, y: y(node.layer) - 0.78 * row, r: 3 };
    default:
      return { x: x + 0.78 * column * ((node.head + 0.5) / heads - 0.5), y: y(node.layer) - 0.3 * row, r: 3.8 };
  }
}
