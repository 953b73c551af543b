"""The collector keeps exactly the largest edges, whatever comes in which order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tracestore.extract.edges import EdgeCollector

SHAPE = (3, 2, 8)


def collect(weights: torch.Tensor, most: int, tile: int) -> EdgeCollector:
    """Feed `weights` [L, H, T, T] in tiles, last layer first."""
    sink = EdgeCollector(SHAPE, (5,), most, weights)
    for layer in range(SHAPE[0] - 1, -1, -1):
        for rows in torch.split(torch.arange(SHAPE[2]), tile):
            seen = int(rows[-1]) + 1
            tile_weights = weights[layer][:, rows, :seen]
            sink.take(layer, rows, tile_weights.abs().clamp(max=1), tile_weights)
    return sink


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 80), st.integers(1, 8), st.integers(0, 10_000), st.booleans())
def test_the_kept_edges_are_the_largest_of_all(most: int, tile: int, seed: int, ties: bool) -> None:
    weights = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tril()
    if ties:
        weights = weights.round()
    sink = collect(weights, most, tile)
    found = sink.edges()
    every = np.sort(np.abs(weights.numpy()[weights.numpy() != 0]))[::-1]
    np.testing.assert_allclose(np.abs(found.weight), every[:most])
    np.testing.assert_array_equal(found.weight, weights.numpy()[found.layer, found.head, found.query, found.key])
    assert len({*zip(found.layer, found.head, found.query, found.key, strict=True)}) == len(found)
    top = sink.tops()
    size = weights.abs().numpy()
    np.testing.assert_array_equal(top.weight, size.max((2, 3)))
    layer, head = np.indices(top.weight.shape)
    np.testing.assert_array_equal(size[layer, head, top.query, top.key], top.weight)


def test_memory_stays_bounded_by_what_may_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0)).tril()
    sink = collect(weights, 4, 4)
    assert sink._pooled <= 2 * 4
    assert sink._floor > 0
    torch.testing.assert_close(sink.value.direct, weights[:, :, 5].abs().sum(1))


def test_no_edges_give_empty_columns() -> None:
    found = EdgeCollector(SHAPE, (0,), 10, torch.zeros(1)).edges()
    assert len(found) == 0
    assert found.layer.dtype == np.int64


@pytest.mark.parametrize("sinks", [(0,), (0, 3), ()])
def test_the_largest_edge_of_a_head_comes_from_a_sink_only_where_there_is_no_other(sinks: tuple[int, ...]) -> None:
    weights = torch.tril(torch.randn(*SHAPE[:2], SHAPE[2], SHAPE[2], generator=torch.Generator().manual_seed(5)))
    weights[..., 0] *= 50  # as attention sinks do
    weights[1, 1, :, 1:] = 0
    sink = EdgeCollector(SHAPE, (5,), 100, weights, sinks=sinks)
    for layer in range(SHAPE[0]):
        for rows in torch.split(torch.arange(SHAPE[2]), 3):
            tile = weights[layer][:, rows, : int(rows[-1]) + 1]
            sink.take(layer, rows, tile, tile)
    tops = sink.tops()
    for layer, head in np.ndindex(*SHAPE[:2]):
        size = weights[layer, head].abs().numpy().copy()
        if (layer, head) != (1, 1):
            size[:, list(sinks)] = 0
        query, key = np.unravel_index(size.argmax(), size.shape)
        assert (int(tops.query[layer, head]), int(tops.key[layer, head])) == (int(query), int(key))
        assert tops.weight[layer, head] == size.max()
