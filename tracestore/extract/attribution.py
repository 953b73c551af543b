"""What an attribution is asked for (`TargetSpec`) and what it gives (`OutputAttribution`).

Letters in shapes: L layers, H query heads, T positions, K kept attention edges. Every weight is in logits, numpy float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from tracestore.model import Gauge

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

VALUE: Final = 0
KEY: Final = 1
QUERY: Final = 2
"""Kinds of attention edges, State -> Head. `frozen` has VALUE edges alone."""

CHANNELS: Final = ("V", "K", "Q")
"""What a head reads through each kind of edge, as compositions and paths name it: values, keys, queries."""


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """One prediction to explain.

    `pos`: position whose logits are read. `token_id` None: the model's own most probable token. With `runner_up` the foil is the most
    probable other token. `gauge` None: `foil` when there is a foil, else `centred`.
    """

    pos: int
    token_id: int | None = None
    foil_token_id: int | None = None
    runner_up: bool = False
    gauge: Gauge | None = None


@dataclass(frozen=True, slots=True)
class SpanSpec:
    """The sum of several predictions, explained as one: `parts` read the logits at neighbouring positions, ascending."""

    parts: tuple[TargetSpec, ...]


@dataclass(frozen=True, slots=True)
class Flows:
    """Relevance of every node and weight of every edge that is not an attention edge.

    `parallel` blocks have no mid State: `mid_*` are zero, `residual_in` is zero and `residual_out` goes from pre(l) to pre(l+1).
    """

    parallel: bool
    pre_relevance: Floats  # [L+1, T]; the last is the final State (explained, at the target position)
    pre_bias: Floats  # [L+1, T] biases added between the last node and this State
    mid_relevance: Floats  # [L, T]
    mid_bias: Floats  # [L, T]
    residual_in: Floats  # [L, T] RESIDUAL pre(l) -> mid(l)
    residual_out: Floats  # [L, T] RESIDUAL mid(l) (pre(l) when parallel) -> pre(l+1)
    head_relevance: Floats  # [L, H, T] = weight of WRITES
    head_bias: Floats  # [L, H, T]
    value_in: Floats  # [L, H, T] signed sum of VALUE edges into a head at a query position
    value_in_abs: Floats  # [L, H, T]
    value_out: Floats  # [L, T] signed sum of VALUE edges out of a State
    value_out_abs: Floats  # [L, T]
    key_in: Floats  # [L, H, T] KEY edges (zero for `frozen`), as for VALUE
    key_in_abs: Floats  # [L, H, T]
    key_out: Floats  # [L, T]
    key_out_abs: Floats  # [L, T]
    query: Floats  # [L, H, T] QUERY edge from the State at a position to its head (zero for `frozen`)
    mlp_relevance: Floats  # [L, T] = weight of WRITES
    mlp_bias: Floats  # [L, T]
    reads: Floats  # [L, T] READS

    @property
    def attention_in(self) -> tuple[Floats, Floats]:
        """Signed and absolute sum of all attention edges into a head at a query position [L, H, T]."""
        return self.value_in + self.key_in + self.query, self.value_in_abs + self.key_in_abs + np.abs(self.query)

    @property
    def attention_out(self) -> tuple[Floats, Floats]:
        """Signed and absolute sum of all attention edges out of a State [L, T]."""
        signed, absolute = self.value_out + self.key_out, self.value_out_abs + self.key_out_abs
        return signed + self.query.sum(1), absolute + np.abs(self.query).sum(1)


@dataclass(frozen=True, slots=True)
class AttentionEdges:
    """Attention edges, largest |weight| first, each [K]: layer, head, query, key, signed weight, attention probability, kind.

    The key of a QUERY edge is its query position, its probability 0.
    """

    layer: Ints
    head: Ints
    query: Ints
    key: Ints
    weight: Floats
    attention: Floats
    kind: Ints

    def __len__(self) -> int:
        return len(self.weight)

    def take(self, chosen: Bools | Ints) -> AttentionEdges:
        """Select edges by a mask or by indices."""
        layer, head, query, key = self.layer[chosen], self.head[chosen], self.query[chosen], self.key[chosen]
        return AttentionEdges(layer, head, query, key, self.weight[chosen], self.attention[chosen], self.kind[chosen])


@dataclass(frozen=True, slots=True)
class HeadTops:
    """The largest |VALUE| edge of every head, from a sink only where there is no other: weight, query and key position, each [L, H]."""

    weight: Floats
    query: Ints
    key: Ints


@dataclass(frozen=True, slots=True)
class PrunedGraph:
    """What is stored: the kept edges, which nodes live, and what was dropped at each."""

    edges: AttentionEdges
    pre_live: Bools  # [L+1, T]
    mid_live: Bools  # [L, T] mid States (and, in every block form, the Mlp)
    head_live: Bools  # [L, H, T]
    pre_dropped_in: Floats  # [L+1, T]
    pre_dropped_in_abs: Floats
    pre_dropped_out: Floats
    pre_dropped_out_abs: Floats
    mid_dropped_in: Floats  # [L, T]
    mid_dropped_in_abs: Floats
    head_dropped_in: Floats  # [L, H, T]
    head_dropped_in_abs: Floats
    attention_kept: float  # |weight| of `edges` over that of all attention edges
    sensitivity: Floats | None = None  # [K] first-order estimates of `edges`, NaN for QUERY; None when they were not asked for


@dataclass(frozen=True, slots=True)
class Compositions:
    """Exact weights of every writer into every reader. The weights into a reader add up to its relevance."""

    writers: tuple[str, ...]  # emb, L0.h0, .., L0.mlp, .., bias
    readers: tuple[tuple[str, str], ...]  # name and input: (L0.h0, V), .. (`secant`: K, Q), (L0.mlp, MLP), .., (out, OUT)
    weight: Floats  # [writer, reader]
    relevance: Floats  # [reader]


@dataclass(frozen=True, slots=True)
class ExactPath:
    """A path from a token's embedding (or a bias) to the output, with its exact signed weight."""

    weight: float
    hops: tuple[str, ...]  # emb@4, L0.mlp@4, L23.h4:V@5, out@5: what wrote, at which position, a head by which input (V, K or Q)
    source_pos: int

    @property
    def motif(self) -> str:
        """The path without positions: emb>L0.mlp>L23.h4:V>out."""
        return ">".join(hop.split("@")[0] for hop in self.hops)


@dataclass(frozen=True, slots=True)
class Paths:
    """The largest paths found, best first. `finished` and `open` are sums of |weight| of finished paths and of entries left open."""

    paths: tuple[ExactPath, ...]
    finished: float
    open: float
    largest_open: float
    total: float  # signed sum of everything finished and open: the explained quantity
    split_error: float  # worst | children of an expanded entry, added up, less the entry |, logits
    expansions: int


@dataclass(frozen=True, slots=True)
class OutputAttribution:
    """One explained prediction, or the sum of several. `sum(scores) + bias = explained` up to `closure`.

    Of a sum: `token_id` is the last one, `logit` and `explained` are sums, `prob` is the product, `vocab_rank` the worst of the parts',
    `logit_std` the root of the summed squares; `foil_token_id` is None, for each part may have a foil of its own.

    `removal`: what hiding a token from every later position would take away, to first order, signed: each row that loses a key shares
    its attention out among the others, and the gradient of the method says what that does (attribution patching; Nanda, 2023).
    """

    pos: int  # whose logits are read; of a sum the last one
    first_pos: int | None  # of a sum the first one
    positions: tuple[int, ...]  # all of them
    token_id: int
    foil_token_id: int | None
    gauge: Gauge
    logit: float  # the model's logit (after a final softcap)
    explained: float
    explained_at: Floats  # [n] position by position
    logit_std: float
    prob: float
    vocab_rank: int
    closure: float
    node_error: float  # worst conservation error of a node, relative like `closure`
    bias: float
    scores: Floats  # [T]
    direct_value: Floats  # [T]
    direct_address: Floats  # [T]
    total_value: Floats  # [T]
    total_address: Floats  # [T]
    removal: Floats  # [T]
    sinks: Bools  # [T]
    sink_mass: float
    mlp_share: float
    head_vector: Floats  # [L * H]
    flows: Flows
    tops: HeadTops
    graph: PrunedGraph
    compositions: Compositions | None = None  # where they were asked for
    paths: Paths | None = None  # likewise

    @property
    def direct(self) -> Floats:
        """Size of all attention edges from a token into the explained positions [T], not negative."""
        return self.direct_value + self.direct_address

    @property
    def total(self) -> Floats:
        """The same into all positions [T]."""
        return self.total_value + self.total_address

    @property
    def drive(self) -> Floats:
        """Mean of the shares of `direct`, `total` and `removal` [T]: the ranking that did best on tuning items (docs/evaluation.md).

        Shares of what lies on tokens that can be hidden: neither sinks nor the explained position itself.
        """
        open_ = ~self.sinks & (np.arange(len(self.sinks)) < self.pos)
        parts = (self.direct, self.total, self.removal)
        masses = (np.abs(part[open_]).sum() for part in parts)
        shares = [part / mass for part, mass in zip(parts, masses, strict=True) if mass > 0]
        found: Floats = sum(shares, np.zeros(len(self.sinks))) / len(parts)
        return found
