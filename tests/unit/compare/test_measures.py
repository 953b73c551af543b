"""Distances by hand, and rank-biased overlap against its defining sum."""

from __future__ import annotations

import numpy as np
import pytest

from tracestore.compare.measures import rank_biased_overlap, ranked, total_variation


def test_total_variation_by_hand() -> None:
    assert total_variation({"a": 0.75, "b": 0.25}, {"a": 0.25, "b": 0.25, "c": 0.5}) == 0.5
    assert total_variation({"a": 1.0}, {"b": 1.0}) == 1.0
    assert total_variation({"a": 0.4, "b": 0.6}, {"b": 0.6, "a": 0.4}) == 0.0
    assert total_variation({"a": 0.5}, {"a": 1.0}) == 0.5  # half of the first is in heads that were not stored
    assert total_variation({}, {}) == 0.0


def test_total_variation_is_the_largest_difference_of_any_set() -> None:
    rng = np.random.default_rng(1)
    p, q = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(6))
    expected = max(abs((p - q)[[bool(mask >> i & 1) for i in range(6)]].sum()) for mask in range(64))
    assert total_variation(dict(enumerate(p)), dict(enumerate(q))) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_overlap_is_the_extrapolated_sum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.permutation(12).tolist(), rng.permutation(12).tolist()
    p, k = 0.9, 12
    agreement = [len(set(one[:d]) & set(other[:d])) / d for d in range(1, k + 1)]
    # the agreement stays what it is at the end: the tail of the geometric series
    expected = (1 - p) * sum(p ** (d - 1) * agreement[d - 1] for d in range(1, k + 1)) + p**k * agreement[-1]
    assert rank_biased_overlap(one, other) == pytest.approx(expected)


def test_overlap_at_its_ends() -> None:
    assert rank_biased_overlap([1, 2, 3], [1, 2, 3]) == pytest.approx(1.0)
    assert rank_biased_overlap([1, 2], [3, 4]) == 0.0
    assert rank_biased_overlap([], []) == 1.0
    assert rank_biased_overlap([], [1]) == 0.0
    assert ranked({"b": 0.2, "a": 0.2, "c": 0.6}) == ["c", "a", "b"]
