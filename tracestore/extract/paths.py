"""Exact paths: the largest contributions of whole paths, token -> components -> output, expanded backwards from the output.

Every entry of the tree has an exact signed weight and, once expanded, a gradient vector of its own (`path_steps`):

    site    a place in the residual stream with a gradient      children: every writer it sees, and the biases
    head    a head's write at a query position                  children: its edges to source positions, and its biases by channel
    edge    one of these                                        becomes a site at the source
    MLP     an MLP's write at a position                        becomes a site at what it reads, plus its own biases

The children of an entry add up to it. Embeddings and biases are leaves: a path that reached one is finished.

1. Choose a threshold: the k-th largest open entry.
2. Sweep the layers once, from the last to the first, and expand every open entry at or above the threshold, a layer's together:
   children lie in lower layers (or in the same one, later in its turn), so one sweep does what best-first search would do, whatever its
   order.
3. Lower the threshold and sweep again, until as many finished paths as are wanted are larger than every open entry, or the budget of
   expansions is spent.

Best-first by |weight| is a heuristic: with cancellation a continuation can exceed its parent. So the mass that is finished, the mass that
is open and the largest open entry are part of the result. All leaves and open entries together are the explained quantity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from tracestore.extract.attribution import CHANNELS, ExactPath, Floats, Ints, Paths
from tracestore.extract.frozen import Seeds
from tracestore.extract.mlp_steps import Rows
from tracestore.extract.path_steps import PathSteps

if TYPE_CHECKING:
    from tracestore.extract.writers import Writers

LEAST_WANTED: Final = 50
"""The search is never for fewer paths than that: so fewer paths are the first of more."""

EXPANSIONS_PER_PATH: Final = 20
"""Budget of expansions for every path that is wanted."""

SWEEP: Final = 0.6
"""A sweep expands open entries down to this share of the largest."""

OUT, EDGE, MLP = 0, 1, 2


def find_paths(steps: PathSteps, seeds: Seeds, final_bias: Floats, wanted: int, budget: int | None = None) -> Paths:
    """Find the `wanted` largest paths to what `seeds` name; `final_bias` [n] is what the final norm and the output head add to each."""
    sought = max(wanted, LEAST_WANTED)
    search = _Search(steps, sought, sought * EXPANSIONS_PER_PATH if budget is None else budget)
    with torch.no_grad(), steps.mlps.running():
        search.start(seeds, final_bias)
        search.run()
    return search.result(wanted)


@dataclass(slots=True)
class _Table:
    """Rows of numbers that grows: `weight` [rows, width], and `open`: |weight| where an entry may be expanded, else 0."""

    width: int
    count: int = 0
    weight: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    open: Floats = field(default_factory=lambda: np.zeros((0, 0)))

    def add(self, weight: Floats, expandable: slice) -> int:
        """Append rows [n, width] of which the columns `expandable` may be expanded; give the first one's number."""
        first, needed = self.count, self.count + len(weight)
        if needed > len(self.weight):
            size = max(2 * len(self.weight), needed, 64)
            self.weight, self.open = (
                np.concatenate([old[: self.count].reshape(-1, self.width), np.zeros((size - self.count, self.width))])
                for old in (self.weight, self.open)
            )
        self.weight[first:needed] = weight
        self.open[first:needed, expandable] = np.abs(weight[:, expandable])
        self.count = needed
        return first


class _Search:
    def __init__(self, steps: PathSteps, sought: int, budget: int) -> None:
        self.steps, self.sought, self.budget = steps, sought, budget
        self.writers: Writers = steps.writers
        self.sites = _Table(self.writers.count)
        self.heads = _Table(steps.length if steps.channels == 1 else 2 * steps.length + 1)
        # of sites: kind of entry it came from, that entry's row and column, position, gradient, weights of biases met
        self.site_from: list[tuple[int, int, int]] = []
        self.site_pos: list[int] = []
        self.site_g = Rows()
        self.site_bias: list[float] = []
        # of heads: site and writer they came from, what the step along their edges needs, weights of their biases by channel
        self.head_from: list[tuple[int, int]] = []
        self.head_passed: dict[int, Rows] = {}  # by layer: layers differ in width
        self.head_bias = _Table(steps.channels)
        self.heads_of_layer: dict[int, list[int]] = {}

    # the search -------------------------------------------------------------------------------------------------------------------

    def start(self, seeds: Seeds, final_bias: Floats) -> None:
        """Set out from the output."""
        positions, site = list(seeds.positions), 2 * self.writers.layers
        g = self.writers.into_output(self._tensor(positions), seeds.vectors)
        self._add_sites(site, [(OUT, 0, 0)] * len(positions), positions, g, final_bias.tolist())

    def run(self) -> None:
        """Sweep with falling thresholds."""
        while self.budget > 0:
            sizes = self._open()
            if len(sizes) == 0 or self._settled(float(sizes.max())):
                return
            threshold = float(sizes.max()) * SWEEP
            for layer in range(self.writers.layers - 1, -1, -1):
                self._expand_mlps(layer, threshold)
                self._expand_heads(layer, threshold)
                self._expand_edges(layer, threshold)
                if self.budget <= 0:
                    return

    def _open(self) -> Floats:
        found = [table.open[: table.count].reshape(-1) for table in (self.sites, self.heads)]
        sizes: Floats = np.concatenate([size[size > 0] for size in found])
        return sizes

    def _settled(self, largest_open: float) -> bool:
        finished = np.abs(self._leaves())
        return len(finished) >= self.sought and float(np.partition(finished, -self.sought)[-self.sought]) >= largest_open

    def _leaves(self) -> Floats:
        sites = self.sites.weight[: self.sites.count, 0]
        return np.concatenate([sites, np.array(self.site_bias), self.head_bias.weight[: self.head_bias.count].reshape(-1)])

    def _choose(self, open_: Floats, threshold: float) -> tuple[Ints, Ints]:
        """Give rows and columns of the open entries at or above the threshold, no more than the budget allows, and pay for them."""
        rows, columns = np.nonzero((open_ >= threshold) & (open_ > 0))
        if len(rows) > self.budget:
            best = np.argsort(-open_[rows, columns], kind="stable")[: self.budget]
            rows, columns = rows[best], columns[best]
        self.budget -= len(rows)
        return rows, columns

    def _expand_mlps(self, layer: int, threshold: float) -> None:
        writer = self.writers.mlp(layer)
        rows, _ = self._choose(self.sites.open[: self.sites.count, writer : writer + 1], threshold)
        if len(rows) == 0:
            return
        self.sites.open[rows, writer] = 0.0
        positions = [self.site_pos[row] for row in rows]
        g, bias = self.steps.mlps.step(layer, self._tensor(positions), self.site_g.take(self._tensor(rows)))
        self._add_sites(2 * layer + 1, [(MLP, int(row), writer) for row in rows], positions, g, bias.tolist())

    def _expand_heads(self, layer: int, threshold: float) -> None:
        first = self.writers.head(layer)
        rows, heads = self._choose(self.sites.open[: self.sites.count, first : first + self.writers.heads], threshold)
        if len(rows) == 0:
            return
        self.sites.open[rows, first + heads] = 0.0
        positions = self._tensor([self.site_pos[row] for row in rows])
        step = self.steps.heads(layer, self._tensor(heads), positions, self.site_g.take(self._tensor(rows)))
        new = self.heads.add(_numpy(step.edges), slice(None))
        self.heads_of_layer.setdefault(layer, []).extend(range(new, new + len(rows)))
        self.head_from += [(int(row), first + int(head)) for row, head in zip(rows, heads, strict=True)]
        self.head_passed.setdefault(layer, Rows()).add(step.passed)
        self.head_bias.add(_numpy(step.bias), slice(0))

    def _expand_edges(self, layer: int, threshold: float) -> None:
        nodes = np.array(self.heads_of_layer.get(layer, []), dtype=np.int64)
        if len(nodes) == 0:
            return
        at, columns = self._choose(self.heads.open[nodes], threshold)
        if len(at) == 0:
            return
        rows = nodes[at]
        self.heads.open[rows, columns] = 0.0
        sites, writers = zip(*(self.head_from[row] for row in rows), strict=True)
        heads, positions = (self._tensor(list(x)) for x in (writers, (self.site_pos[site] for site in sites)))
        passed = self.head_passed[layer].take(self._tensor(at))
        sources, g = self.steps.edges(layer, heads - self.writers.head(layer), positions, self._tensor(columns), passed)
        origins = [(EDGE, int(row), int(column)) for row, column in zip(rows, columns, strict=True)]
        self._add_sites(2 * layer, origins, sources.tolist(), g, [0.0] * len(rows))

    def _add_sites(self, site: int, origins: list[tuple[int, int, int]], positions: list[int], g: Tensor, bias: list[float]) -> None:
        weight, streamed = self.steps.children(site, self._tensor(positions), g)
        self.sites.add(_numpy(weight), slice(1, None))
        self.site_from += origins
        self.site_pos += positions
        self.site_g.add(g)
        self.site_bias += [own + met for own, met in zip(bias, streamed.tolist(), strict=True)]

    def _tensor(self, numbers: list[int] | Ints) -> Tensor:
        return torch.as_tensor(numbers, dtype=torch.int64, device=self.writers.residual(0).device)

    # the result -------------------------------------------------------------------------------------------------------------------

    def result(self, wanted: int) -> Paths:
        """Give the `wanted` largest finished paths and what is left open."""
        leaves, open_ = self._leaves(), self._open()
        n = self.sites.count
        order = np.argsort(-np.abs(leaves), kind="stable")[:wanted]
        order = order[leaves[order] != 0]
        found = []
        for leaf in order.tolist():
            if leaf < 2 * n:
                source = "emb" if leaf < n else "bias"
                hops = [f"{source}@{self.site_pos[leaf % n]}", *self._hops(leaf % n)]
                position = self.site_pos[leaf % n]
            else:
                head, channel = divmod(leaf - 2 * n, self.steps.channels)
                site, writer = self.head_from[head]
                position = self.site_pos[site]
                hops = [f"bias@{position}", f"{self.writers.name(writer)}:{CHANNELS[channel]}@{position}", *self._hops(site)]
            found.append(ExactPath(float(leaves[leaf]), tuple(hops), position))
        open_sum = sum(float(t.weight[: t.count][t.open[: t.count] > 0].sum()) for t in (self.sites, self.heads))
        return Paths(
            paths=tuple(found),
            finished=float(np.abs(leaves).sum()),
            open=float(open_.sum()),
            largest_open=float(open_.max(initial=0.0)),
            total=float(leaves.sum()) + open_sum,
            split_error=self._split_error(),
            expansions=n + self.heads.count,
        )

    def _split_error(self) -> float:
        """Give the worst difference between an expanded entry and its children (identity I13)."""
        sites, heads = self.sites.weight[: self.sites.count], self.heads.weight[: self.heads.count]
        found = sites.sum(1) + np.array(self.site_bias)
        kinds, rows, columns = np.array(self.site_from, dtype=np.int64).T
        errors = [
            np.abs(found[kinds == kind] - table[rows[kinds == kind], columns[kinds == kind]])
            for kind, table in ((EDGE, heads), (MLP, sites))
        ]
        if self.head_from:
            rows, columns = np.array(self.head_from, dtype=np.int64).T
            below = heads.sum(1) + self.head_bias.weight[: self.head_bias.count].sum(1)
            errors.append(np.abs(below - sites[rows, columns]))
        return float(np.concatenate(errors).max(initial=0.0))

    def _hops(self, site: int) -> list[str]:
        """Name what a site's path goes through from there to the output."""
        hops: list[str] = []
        while True:
            kind, row, column = self.site_from[site]
            if kind == OUT:
                return [*hops, f"out@{self.site_pos[site]}"]
            suffix = ""
            if kind == EDGE:
                suffix = f":{CHANNELS[column // self.steps.length]}"
                site, column = self.head_from[row]
            else:
                site = row
            hops.append(f"{self.writers.name(column)}{suffix}@{self.site_pos[site]}")


def _numpy(tensor: Tensor) -> Floats:
    out: Floats = tensor.cpu().to(torch.float64).numpy()
    return out
