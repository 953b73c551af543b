"""Bootstrap intervals against the normal theory, and pairs."""

from __future__ import annotations

import numpy as np
import pytest

from tracestore.evaluate.intervals import mean_interval, median_interval, paired_interval


def test_the_interval_agrees_with_the_normal_one_on_a_large_sample() -> None:
    sample = np.random.default_rng(3).normal(2.0, 1.5, 4_000)
    found = mean_interval(sample.tolist())
    half = 1.96 * sample.std() / np.sqrt(len(sample))
    assert found.centre == pytest.approx(sample.mean())
    assert found.low == pytest.approx(sample.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(sample.mean() + half, abs=0.15 * half)
    assert found.n == 4_000


def test_pairs_see_a_small_difference_that_means_do_not() -> None:
    rng = np.random.default_rng(5)
    hard = rng.normal(0, 10, 200)
    ours, theirs = hard + 0.5, hard + rng.normal(0, 0.5, 200)
    assert paired_interval(ours.tolist(), theirs.tolist()).above_zero
    assert mean_interval(ours.tolist()).low < mean_interval(theirs.tolist()).high


def test_missing_values_are_left_out_and_nothing_is_said_of_nothing() -> None:
    assert mean_interval([1.0, float("nan"), 3.0]).n == 2
    empty = mean_interval([])
    assert (empty.n, str(empty), empty.above_zero, empty.below_zero) == (0, "-", False, False)


def test_a_median_does_not_move_with_one_wild_value() -> None:
    found = median_interval([2.0, 2.1, 2.2, 2.3, 90.0, float("nan")])
    assert (found.centre, found.low, found.n) == (2.2, 2.0, 5)
    assert f"{median_interval([2.0, 2.0, 2.0]):.1f}" == "2.0 [2.0, 2.0]"
    sample = np.random.default_rng(7).normal(1.0, 2.0, 4_000)
    wide = median_interval(sample.tolist())
    half = 1.96 * 2.0 * np.sqrt(np.pi / 2 / len(sample))  # the standard error of a normal sample's median
    assert (wide.high - wide.low) / 2 == pytest.approx(half, rel=0.25)
