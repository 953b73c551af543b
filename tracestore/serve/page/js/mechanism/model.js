// The graph as it was given, and the part of it that is shown: the largest edges that together hold a share of the |weight|.
//
// Attention edges and the others are cut apart, each at the same share: residual edges outweigh all others by far.

const ATTENTION = new Set(["VALUE", "KEY", "QUERY"]);

export class Graph {
  constructor({ nodes, edges }) {
    this.nodes = new Map(nodes.map((node) => [node.id, node]));
    this.edges = new Map(edges.map((edge) => [edge.id, edge]));
    this.sort();
  }

  /** Add what an expansion brought. */
  add({ nodes, edges }) {
    for (const node of nodes) if (!this.nodes.has(node.id)) this.nodes.set(node.id, node);
    for (const edge of edges) this.edges.set(edge.id, edge);
    this.sort();
  }

  sort() {
    const all = [...this.edges.values()].sort((a, b) => Math.abs(b.mainstat) - Math.abs(a.mainstat));
    this.groups = [all.filter((edge) => ATTENTION.has(edge.type)), all.filter((edge) => !ATTENTION.has(edge.type))].map(cumulated);
    this.largest = Math.abs(this.groups[0].edges[0]?.mainstat ?? this.groups[1].edges[0]?.mainstat ?? 1);
    this.touching = new Map();
    for (const edge of all) for (const end of [edge.source, edge.target]) this.touching.set(end, [...(this.touching.get(end) ?? []), edge]);
  }

  /** Give the edges that hold this share of either group, largest last (drawn on top). */
  shown(share) {
    return this.groups.flatMap(({ edges, sums }) => edges.slice(0, countFor(sums, share))).reverse();
  }

  /** Give the share at which about `most` edges are shown. */
  shareFor(most) {
    for (let share = 0.9; share > 0.05; share -= 0.05) if (this.shown(share).length <= most) return share;
    return 0.05;
  }
}

function cumulated(edges) {
  let sum = 0;
  return { edges, sums: edges.map((edge) => (sum += Math.abs(edge.mainstat))) };
}

function countFor(sums, share) {
  const wanted = share * (sums.at(-1) ?? 0);
  let low = 0;
  let high = sums.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sums[middle] < wanted - 1e-9) low = middle + 1;
    else high = middle;
  }
  return share >= 1 ? sums.length : Math.min(sums.length, low + 1);
}
