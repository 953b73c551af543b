"""The engine against a second implementation that shares nothing with it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import attribution_oracle as oracle
from tests.support.tiny_models import tiny_model, tokens
from tracestore.extract.attribute import Attributor
from tracestore.extract.attribution import TargetSpec
from tracestore.extract.identities import EVERY_EDGE, dense_edges


@pytest.mark.parametrize(("name", "tolerance"), [("llama", 2e-6), ("gpt2", 1e-11)])  # RoPE's angles are float32 in transformers
@pytest.mark.parametrize(("pos", "foil"), [(8, None), (5, 11)])
def test_scores_edges_and_biases_equal_those_written_out_by_hand(name: str, tolerance: float, pos: int, foil: int | None) -> None:
    model, ids = tiny_model(name), tokens(9)
    found = Attributor(model).run(ids).attribute(TargetSpec(pos, 7, foil), EVERY_EDGE)
    parts = oracle.llama(model, ids.tolist()) if name == "llama" else oracle.gpt2(model, ids.tolist())
    expected = oracle.attribute(parts, pos, 7, foil)
    assert abs(expected.scores.sum() + expected.bias - expected.explained) < 1e-12  # the oracle closes on its own
    assert found.explained == pytest.approx(expected.explained, abs=tolerance)
    assert found.bias == pytest.approx(expected.bias, abs=tolerance)
    np.testing.assert_allclose(found.scores, expected.scores, atol=tolerance, rtol=0)
    np.testing.assert_allclose(dense_edges(found), expected.edges, atol=tolerance, rtol=0)
    np.testing.assert_allclose(found.flows.head_relevance, expected.heads, atol=tolerance, rtol=0)
    np.testing.assert_allclose(found.flows.mlp_relevance, expected.mlps, atol=tolerance, rtol=0)
    np.testing.assert_allclose(found.direct_value, np.abs(expected.edges[:, :, pos]).sum((0, 1)), atol=tolerance * 10, rtol=0)
    np.testing.assert_allclose(found.total_value, np.abs(expected.edges).sum((0, 1, 2)), atol=tolerance * 10, rtol=0)
    assert np.abs(expected.edges).max() > 0.05  # the comparison is not between zeros
    assert abs(expected.bias) > 0.01
