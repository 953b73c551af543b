"""Measures of an order against evidence: hand-computed cases, and scikit-free oracles by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tracestore.evaluate.measures import ranking

SCORES = np.array([9.0, 0.5, 3.0, 3.0, -1.0])


def test_order_puts_the_earlier_of_equals_first_and_leaves_out_what_it_should() -> None:
    assert ranking.order(SCORES) == [0, 2, 3, 1, 4]
    assert ranking.order(SCORES, {0}) == [2, 3, 1, 4]


def test_hand_computed_values() -> None:
    ranked = [2, 3, 1, 4]
    assert ranking.precision_at(ranked, {3, 4}, 1) == 0.0
    assert ranking.precision_at(ranked, {3, 4}, 2) == 0.5
    assert ranking.precision_at(ranked, {3, 4}, 9) == 0.5
    assert ranking.reciprocal_rank(ranked, {3, 4}) == 0.5
    assert ranking.reciprocal_rank(ranked, {0}) == 0.0
    assert ranking.share_on(SCORES, {2, 4}, {0}) == pytest.approx(4.0 / 7.5)
    assert np.isnan(ranking.share_on(np.zeros(3), {1}))
    assert ranking.step_recalls(ranked, [{3}, {1}]) == [1.0, 0.0]
    assert ranking.token_f1(ranked, {3, 4}) == 0.5
    assert ranking.token_iou(ranked, {3, 4}) == pytest.approx(1 / 3)
    assert ranking.average_precision(ranked, {3, 4}) == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_average_precision_is_the_area_under_the_step_curve() -> None:
    """Oracle: integrate precision over recall, cut by cut, for every order of five positions."""
    evidence = {1, 3}
    for ranked in itertools.permutations(range(5)):
        area, recall_before = 0.0, 0.0
        for cut in range(1, 6):
            hits = len(set(ranked[:cut]) & evidence)
            area += (hits / len(evidence) - recall_before) * (hits / cut)
            recall_before = hits / len(evidence)
        assert ranking.average_precision(ranked, evidence) == pytest.approx(area)
