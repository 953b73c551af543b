"""Which edges are kept, which nodes live, and how what is dropped is counted, on a graph small enough to do by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tracestore.extract.attribution import AttentionEdges, Flows
from tracestore.extract.prune import choose_edges, prune
from tracestore.model import PruningOptions


def edges(*rows: tuple[int, int, int, int, float]) -> AttentionEdges:
    """Edges (layer, head, query, key, weight), largest first."""
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return AttentionEdges(
        columns[0],
        columns[1],
        columns[2],
        columns[3],
        columns[4].astype(float),
        np.full(len(rows), 0.5),
        np.zeros(len(rows), dtype=np.int64),
    )


EDGES = edges((1, 0, 2, 1, 4.0), (0, 1, 1, 0, -3.0), (0, 0, 0, 0, 2.0), (1, 1, 2, 2, 1.0))


@pytest.mark.parametrize(
    ("keep", "most", "count"), [(0.4, 100, 1), (0.41, 100, 2), (0.7, 100, 2), (0.9, 100, 3), (1.0, 100, 4), (1.0, 2, 2), (0.0, 100, 1)]
)
def test_the_largest_edges_up_to_the_share_are_chosen(keep: float, most: int, count: int) -> None:
    chosen = choose_edges(EDGES, 10.0, PruningOptions(keep, most))
    assert chosen.weight.tolist() == EDGES.weight.tolist()[:count]


def flows(*, parallel: bool) -> Flows:
    """Two layers, two heads, three positions; the explained position is 2."""
    layers, heads, length = 2, 2, 3
    value_in = np.zeros((layers, heads, length))
    value_out, value_out_abs = np.zeros((layers, length)), np.zeros((layers, length))
    for layer, head, query, key, weight in zip(EDGES.layer, EDGES.head, EDGES.query, EDGES.key, EDGES.weight, strict=True):
        value_in[layer, head, query] += weight
        value_out[layer, key] += weight
        value_out_abs[layer, key] += abs(weight)
    ones = np.ones((layers, length))
    return Flows(
        parallel=parallel,
        pre_relevance=np.ones((layers + 1, length)),
        pre_bias=np.zeros((layers + 1, length)),
        mid_relevance=ones,
        mid_bias=0 * ones,
        residual_in=0.25 * ones,
        residual_out=0.5 * ones,
        head_relevance=value_in,
        head_bias=0 * value_in,
        value_in=value_in,
        value_in_abs=np.abs(value_in),
        value_out=value_out,
        value_out_abs=value_out_abs,
        key_in=0 * value_in,
        key_in_abs=0 * value_in,
        key_out=0 * value_out,
        key_out_abs=0 * value_out,
        query=0 * value_in,
        mlp_relevance=ones,
        mlp_bias=0 * ones,
        reads=-0.125 * ones,
    )


def test_nodes_live_downwards_from_the_explained_position() -> None:
    graph = prune(flows(parallel=False), EDGES, (2,), PruningOptions(keep=0.9))
    assert graph.pre_live.tolist() == [[True, True, True], [False, True, True], [False, False, True]]
    assert graph.mid_live.tolist() == [[False, True, True], [False, False, True]]
    assert np.argwhere(graph.head_live).tolist() == [[0, 1, 1], [1, 0, 2]]
    # the edge (0, 0, 0, 0) is large enough, but its head writes to position 0, which nothing reads
    assert graph.edges.weight.tolist() == [4.0, -3.0]
    assert graph.attention_kept == pytest.approx(0.7)


def test_what_is_dropped_is_counted_at_the_ends_that_live() -> None:
    graph = prune(flows(parallel=False), EDGES, (2,), PruningOptions(keep=0.9))
    assert not graph.head_dropped_in[graph.head_live].any()
    assert graph.mid_dropped_in[1].tolist() == [0.0, 0.0, 1.0]  # head (1, 1, 2) does not live: its write is missed
    assert graph.mid_dropped_in[0].tolist() == [0.0, 0.0, 0.0]
    # pre(1, 2): its edge of weight 1 is not stored; pre(1, 1): its RESIDUAL is not; pre(0, 0): its edge of 2 and its RESIDUAL
    assert graph.pre_dropped_out.tolist() == [[2.25, 0.0, 0.0], [0.0, 0.25, 1.0], [0.0, 0.0, 0.0]]
    assert graph.pre_dropped_out_abs.tolist() == graph.pre_dropped_out.tolist()
    assert not graph.pre_dropped_in.any()


def test_parallel_blocks_drop_reads_and_residual_of_states_that_are_sources_only() -> None:
    graph = prune(flows(parallel=True), EDGES, (2,), PruningOptions(keep=0.9))
    assert graph.pre_dropped_out.tolist() == [[2.375, 0.0, 0.0], [0.0, 0.375, 1.0], [0.0, 0.0, 0.0]]
    assert graph.pre_dropped_out_abs[0, 0] == 2 + 0.5 + 0.125
    assert graph.pre_dropped_in.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert not graph.mid_dropped_in.any()


def test_a_graph_without_attention_edges_is_the_residual_stream_of_one_position() -> None:
    none = EDGES.take(np.zeros(4, dtype=bool))
    graph = prune(flows(parallel=False), none, (2,), PruningOptions())
    assert graph.pre_live.sum(1).tolist() == [1, 1, 1]
    assert not graph.head_live.any()
    assert graph.attention_kept == 0
