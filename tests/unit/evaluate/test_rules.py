"""Rules of back-propagation: the machinery reproduces our own method, conserving rules conserve, and hand-computed rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.tiny_models import tiny_model, tokens
from tracestore.evaluate.baselines import gradients, rules
from tracestore.evaluate.case import Case
from tracestore.extract.attribute import Attributor
from tracestore.extract.attribution import TargetSpec
from tracestore.model import PruningOptions


@pytest.fixture(scope="module", params=["llama", "qwen3", "gpt2"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case("case", "task", Attributor(tiny_model(request.param)), tuple(tokens(9).tolist()), 11)


def test_the_secant_rule_in_this_machinery_is_the_method_secant(case: Case) -> None:
    found = rules.by_rule(case, rules.secant_share(0.5))
    ours = case.attributor.run(torch.tensor(case.token_ids), method="secant").attribute(TargetSpec(case.pos, case.token_id))
    np.testing.assert_allclose(found.score, ours.scores, rtol=1e-8, atol=1e-10)
    assert np.corrcoef(found.total, ours.total_value + ours.total_address)[0, 1] > 0.8  # biases are counted with the edges here


@pytest.mark.parametrize("rule", [rules.linear, rules.ratio, rules.secant_share(0.5), rules.secant_share(0.25)])
def test_conserving_rules_split_a_rows_relevance_without_remainder(rule: rules.Rule) -> None:
    generator = torch.Generator().manual_seed(4)
    scores = 5 * torch.randn(3, 6, 7, generator=generator, dtype=torch.float64)
    allowed = torch.rand(3, 6, 7, generator=generator) < 0.7
    allowed[..., 0] = True
    g = torch.randn(3, 6, 7, generator=generator, dtype=torch.float64)
    weight, ds = rule(scores, allowed, g)
    a = torch.where(allowed, scores, -torch.inf).softmax(-1)
    missed = (weight * g).sum(-1) + (ds * scores).sum(-1) - (a * g).sum(-1)
    assert float(missed.abs().max()) < 1e-9
    assert float(ds.sum(-1).abs().max()) < 1e-12


def test_attnlrp_and_the_gradient_are_what_they_say() -> None:
    scores = torch.tensor([0.0, np.log(3.0)], dtype=torch.float64)
    allowed, g = torch.tensor([True, True]), torch.tensor([4.0, 0.0], dtype=torch.float64)
    weight, ds = rules.attnlrp(scores, allowed, g)  # a = 1/4, 3/4; ag = 1
    np.testing.assert_allclose(weight, [1 / 8, 3 / 8])
    np.testing.assert_allclose(ds, [3 / 8, -3 / 8])
    weight, ds = rules.gradient(scores, allowed, g)
    np.testing.assert_allclose(weight, [1 / 4, 3 / 4])
    np.testing.assert_allclose(ds, [2 * 3 / 4, -2 * 3 / 4])


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_sensitivity_of_tokens_sums_the_sensitivity_of_edges(family: str) -> None:
    case = Case("case", "task", Attributor(tiny_model(family)), tuple(tokens(9).tolist()), 11)
    found = gradients.sensitivity(case)
    run = case.attributor.run(torch.tensor(case.token_ids), method="secant")
    graph = run.attribute(TargetSpec(case.pos, case.token_id), PruningOptions(keep=1.0, max_edges=1_000_000), sensitivity=True).graph
    assert graph.sensitivity is not None
    sizes = np.nan_to_num(np.abs(graph.sensitivity))  # QUERY edges have none
    last = graph.edges.query == case.pos
    np.testing.assert_allclose(found["total"], np.bincount(graph.edges.key, sizes, minlength=case.length), rtol=1e-6)
    np.testing.assert_allclose(found["direct"], np.bincount(graph.edges.key[last], sizes[last], minlength=case.length), rtol=1e-6)
