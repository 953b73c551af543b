"""Baselines against transformers' own attention maps and gradients, and against sums that must hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tiny_models import tiny_model, tokens
from tracestore.evaluate.baselines import ablation, attention, gradients, simple
from tracestore.evaluate.case import Case
from tracestore.evaluate.removing import Removing
from tracestore.extract.attribute import Attributor
from tracestore.extract.knockouts.measure import Measured

LENGTH, TOKEN = 9, 11


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def case(request: pytest.FixtureRequest) -> Case:
    ids = tuple(int(token) for token in tokens(LENGTH).tolist())
    return Case("case", "task", Attributor(tiny_model(request.param)), ids, TOKEN)


def hf_attentions(case: Case) -> torch.Tensor:
    """Probabilities [L, H, T, T] as transformers' eager attention gives them."""
    model: Any = case.attributor.model
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            found = model(case.ids, output_attentions=True).attentions
    finally:
        model.set_attn_implementation(before)
    return torch.stack(found)[:, 0].double()


def centred_logit(case: Case, embedded: torch.Tensor) -> torch.Tensor:
    row = case.attributor.model(inputs_embeds=embedded[None]).logits[0, -1]
    out: torch.Tensor = row[case.token_id] - row.mean()
    return out


def test_raw_attention_and_rollout_are_those_of_transformers_own_maps(case: Case) -> None:
    maps = hf_attentions(case).numpy()
    np.testing.assert_allclose(attention.raw_attention(case), maps[:, :, -1].mean((0, 1)), atol=1e-6)
    rolled = np.eye(LENGTH)
    for layer in maps:
        rolled = (layer.mean(0) + np.eye(LENGTH)) / 2 @ rolled
    np.testing.assert_allclose(attention.rollout(case), rolled[-1], atol=1e-6)


def test_direct_logit_leaves_what_the_mlps_and_biases_write(case: Case) -> None:
    attributor = case.attributor
    written: list[torch.Tensor] = []
    handles = [
        part.writer.register_forward_hook(lambda _m, _a, out: written.append(out[0, -1].detach()))
        for block in attributor.layout.blocks
        for part in block.feed_forward
    ]
    finals: list[torch.Tensor] = []
    handles.append(attributor.layout.final_norm.register_forward_pre_hook(lambda _m, args: finals.append(args[0][0, -1].detach())))
    with torch.no_grad():
        attributor.model(case.ids)
    for handle in handles:
        handle.remove()
    for block in attributor.layout.blocks:
        writer: Any = getattr(block.attention, "o_proj", None) or block.attention.c_proj
        written.append(writer.bias.detach())
    state = finals[0]
    scale = attributor.norms[attributor.layout.final_norm]
    vector, _ = attributor.reader.direction("centred", TOKEN, None, state)
    # with its scale held fixed the norm is linear: a part p of the state adds < v, D p >
    spread = state - state.mean() if scale.centred else state
    factor = torch.rsqrt(spread.square().mean() + scale.eps)

    def through(part: torch.Tensor) -> float:
        part = part - part.mean() if scale.centred else part
        out = part * factor * (1 if scale.weight is None else scale.weight)
        return float(out @ vector.to(out.dtype))

    whole = through(state)
    rest = sum(through(part) for part in written)
    assert float(attention.direct_logit(case).sum()) + rest == pytest.approx(whole, abs=2e-5)


def test_proximity_shares_flow_without_loss(case: Case) -> None:
    for scores in (attention.alti(case), attention.ifr(case), attention.rollout(case)):
        assert scores.sum() == pytest.approx(1.0, abs=1e-5)
        assert (scores >= 0).all()
    assert not np.allclose(attention.alti(case), attention.ifr(case))
    assert attention.attention_norm(case).sum() == pytest.approx(1.0, abs=1e-5)


def test_gradients_are_those_of_autograd_and_integrated_gradients_are_complete(case: Case) -> None:
    embedding = case.attributor.model.get_input_embeddings()
    x = embedding(case.ids)[0].detach()
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(centred_logit(case, x), x)
    np.testing.assert_allclose(gradients.saliency(case), gradient.norm(dim=-1).numpy(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(gradients.gradient_x_input(case), (gradient * x).sum(-1).detach().numpy(), rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        difference = float(centred_logit(case, x) - centred_logit(case, torch.zeros_like(x)))
    assert gradients.integrated_gradients(case, 200).sum() == pytest.approx(difference, abs=5e-3)


def test_leave_one_out_is_the_model_with_the_token_masked(case: Case) -> None:
    model: Any = case.attributor.model
    place = 4
    allowed = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    allowed[place + 1 :, place] = False
    mask = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[None, None]
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            row, cut = model(case.ids).logits[0, -1], model(case.ids, attention_mask=mask).logits[0, -1]
    finally:
        model.set_attn_implementation(before)
    expected = float((row[TOKEN] - row.mean()) - (cut[TOKEN] - cut.mean()))
    found = ablation.leave_one_out(case, "column")
    assert found[place] == pytest.approx(expected, abs=1e-4)
    assert found[0] == found[-1] == 0.0


def test_the_regression_finds_the_weights_of_an_additive_model(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.linspace(-2, 3, LENGTH)

    def additive(_self: Removing, _how: str, sets: Iterable[Iterable[int]]) -> list[Measured]:
        return [Measured(float(weights.sum() - sum(weights[list(chosen)])), 0.0, 0) for chosen in sets]

    monkeypatch.setattr(Removing, "measure", additive)
    np.testing.assert_allclose(ablation.ablation_regression(case, 400)[1:-1], weights[1:-1], atol=0.2)


def test_orders_without_a_model() -> None:
    one = Case("a", "t", None, (1, 2, 3), 0)  # type: ignore[arg-type]
    other = Case("b", "t", None, (1, 2, 3), 0)  # type: ignore[arg-type]
    np.testing.assert_array_equal(simple.random_order(one), simple.random_order(one))
    assert not np.array_equal(simple.random_order(one), simple.random_order(other))
    assert simple.recency(one).argmax() == 2
    assert simple.first_token(one).argmax() == 0
