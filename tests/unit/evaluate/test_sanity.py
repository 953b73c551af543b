"""Sanity checks on checks: a score that ignores the weights is caught, and one that reads them is not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.tiny_models import tiny_model, tokens
from tracestore.evaluate.baselines.simple import random_order
from tracestore.evaluate.case import Case
from tracestore.evaluate.methods import METHODS
from tracestore.evaluate.sanity import randomised_weights, reference_agreement
from tracestore.extract.attribute import Attributor


@pytest.fixture(scope="module")
def case() -> Case:
    return Case("case", "t", Attributor(tiny_model("llama")), tuple(tokens(14).tolist()), 11)


def test_scores_that_ignore_the_weights_are_told_apart_from_ours(case: Case) -> None:
    before = [parameter.detach().clone() for parameter in case.attributor.model.parameters()]
    blind = randomised_weights(case, random_order)
    ours = randomised_weights(case, METHODS["frozen.total"].run)
    assert [row["layers"] for row in ours] == [1, 2, 3]
    assert all(row["rho"] == pytest.approx(1.0) for row in blind)
    assert abs(ours[-1]["rho"]) < 0.9
    assert all(bool((a == b).all()) for a, b in zip(before, case.attributor.model.parameters(), strict=True)), (
        "the model itself was changed"
    )


def test_two_references_are_compared_over_the_removable_tokens(case: Case) -> None:
    found = reference_agreement(case)
    assert -1.0 <= found["rho"] <= 1.0
    assert np.isfinite(found["rho"])
    assert found["rho"] < 0.999
