"""The sum of several predictions as one target: in float64 it is the sum of them explained one by one, and its graph conserves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.tiny_models import CONFIGS, tiny_model, tokens
from tracestore.extract.attribute import Attributor, ForwardPass
from tracestore.extract.attribution import Floats, OutputAttribution, SpanSpec, TargetSpec
from tracestore.extract.output_tables import OutputNames, output_tables
from tracestore.extract.table_checks import conservation_error
from tracestore.model import PruningOptions

LENGTH, EVERY = 9, PruningOptions(keep=1.0)
PARTS = (TargetSpec(3, 20), TargetSpec(4, 30, runner_up=True, gauge="foil"), TargetSpec(5))


@pytest.fixture(scope="module", params=list(CONFIGS))
def attributor(request: pytest.FixtureRequest) -> Attributor:
    return Attributor(tiny_model(request.param), admit=False)


@pytest.fixture(scope="module", params=["frozen", "secant"])
def run(attributor: Attributor, request: pytest.FixtureRequest) -> ForwardPass:
    return attributor.run(tokens(LENGTH), method=request.param)


def test_a_span_is_the_sum_of_its_parts(run: ForwardPass) -> None:
    whole, parts = run.attribute(SpanSpec(PARTS), EVERY), [run.attribute(part, EVERY) for part in PARTS]

    for name in ("scores", "explained", "bias", "head_vector"):
        np.testing.assert_allclose(getattr(whole, name), sum(getattr(part, name) for part in parts), atol=1e-10)
    np.testing.assert_allclose(whole.explained_at, [part.explained for part in parts], atol=1e-10)
    np.testing.assert_allclose(dense(whole), sum(dense(part) for part in parts), atol=1e-10)
    scale = max(abs(whole.explained), whole.logit_std)
    assert max(whole.closure, whole.node_error) * scale < 1e-10
    assert whole.logit == pytest.approx(sum(part.logit for part in parts))
    assert whole.prob == pytest.approx(float(np.prod([part.prob for part in parts])), rel=1e-5)
    assert whole.logit_std == pytest.approx(float(np.sqrt(sum(part.logit_std**2 for part in parts))))
    assert (whole.pos, whole.positions, whole.foil_token_id) == (5, (3, 4, 5), None)
    assert whole.vocab_rank == max(part.vocab_rank for part in parts)


def dense(found: OutputAttribution) -> Floats:
    """Give the kept attention edges [kind, L, H, T, T]."""
    flows, edges = found.flows, found.graph.edges
    out = np.zeros((3, *flows.head_relevance.shape, LENGTH))
    out[edges.kind, edges.layer, edges.head, edges.query, edges.key] = edges.weight
    return out


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_its_graph_conserves_with_one_final_state_for_each_part(run: ForwardPass, keep: float) -> None:
    found = run.attribute(SpanSpec(PARTS), PruningOptions(keep=keep))
    made = output_tables(found, OutputNames("t", "tiny"), first_local=20, token_locals=np.arange(LENGTH), token_ids=tokens(LENGTH).numpy())
    assert conservation_error(made.tables) < 1e-5 * max(1.0, abs(found.explained))  # the tables are float32
    unembeds = made.tables["UNEMBEDS.State.Output"]
    np.testing.assert_allclose(np.sort(unembeds["weight"].to_numpy()), np.sort(found.explained_at), rtol=1e-6)
    assert set(unembeds["rank"].to_pylist()) == {1, 2, 3}
    assert made.tables["INFLUENCES.Token.Output"].num_rows == 6


def test_direct_counts_the_edges_into_every_part(run: ForwardPass) -> None:
    found = run.attribute(SpanSpec(PARTS), EVERY)
    value, key = np.abs(dense(found))[:2, :, :, [3, 4, 5]].sum((1, 2, 3))
    np.testing.assert_allclose(found.direct_value, value, atol=1e-10)
    np.testing.assert_allclose(found.direct_address, key, atol=1e-10)


def test_left_padding_changes_nothing() -> None:
    attributor = Attributor(tiny_model("llama"), admit=False)
    alone = attributor.run(tokens(LENGTH)).attribute(SpanSpec(PARTS), EVERY)
    padded = torch.cat([torch.zeros(2, dtype=torch.long), tokens(LENGTH)])[None]
    mask = (torch.arange(LENGTH + 2) >= 2).long()[None]
    moved = tuple(TargetSpec(p.pos + 2, p.token_id, runner_up=p.runner_up, gauge=p.gauge) for p in PARTS)
    run = attributor.run(padded, attention_mask=mask, position_ids=(torch.arange(LENGTH + 2) - 2).clamp_min(0)[None])
    found = run.attribute(SpanSpec(moved), EVERY)
    np.testing.assert_allclose(found.scores[2:], alone.scores, atol=1e-10)
    assert found.explained == pytest.approx(alone.explained)
