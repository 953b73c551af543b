"""The entry: what may be asked, what is refused, and that one forward pass serves many targets."""

from __future__ import annotations

import gc
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch

from tests.support.tiny_models import randomised, tiny_model, tokens
from tracestore.errors import BadInputError, ConservationError, ModelOutputError, UnsupportedModelError
from tracestore.extract import attribute as entry
from tracestore.extract.attribute import Attributor, ForwardPass
from tracestore.extract.attribution import TargetSpec


@pytest.fixture(scope="module")
def attributor() -> Attributor:
    return Attributor(tiny_model("llama"))


@pytest.fixture(scope="module")
def run(attributor: Attributor) -> ForwardPass:
    return attributor.run(tokens(10))


def test_the_target_is_the_models_own_choice_unless_one_is_given(attributor: Attributor, run: ForwardPass) -> None:
    own = attributor.model(input_ids=run.ids).logits[0, -1].detach()
    found = run.attribute(TargetSpec(-1))
    assert (found.pos, found.token_id, found.vocab_rank, found.gauge) == (9, int(own.argmax()), 1, "centred")
    assert found.logit == pytest.approx(float(own.max()), abs=1e-6)
    assert found.explained == pytest.approx(float(own.max() - own.mean()), abs=1e-6)
    assert found.logit_std == pytest.approx(float(own.std(correction=0)), abs=1e-6)
    assert found.prob == pytest.approx(float(own.softmax(-1).max()), abs=1e-6)
    second = run.attribute(TargetSpec(-1, runner_up=True))
    ranked = own.argsort(descending=True)
    assert (second.foil_token_id, second.gauge) == (int(ranked[1]), "foil")
    assert second.explained == pytest.approx(float(own[ranked[0]] - own[ranked[1]]), abs=1e-6)
    raw = run.attribute(TargetSpec(-1, 33, gauge="raw"))
    assert raw.explained == pytest.approx(float(own[33]), abs=1e-6)
    assert raw.vocab_rank == int((own > own[33]).sum()) + 1


def test_a_target_in_the_middle_is_that_of_the_shorter_prompt(attributor: Attributor, run: ForwardPass) -> None:
    middle, alone = run.attribute(TargetSpec(5, 8)), attributor.run(tokens(10)[:6]).attribute(TargetSpec(-1, 8))
    np.testing.assert_allclose(middle.scores[:6], alone.scores, atol=1e-12)
    assert not middle.scores[6:].any()
    assert not middle.total_value[6:].any()


def test_logits_before_and_after_a_final_softcap() -> None:
    model = tiny_model("gemma2")
    run = Attributor(model).run(tokens(6))
    own = model(input_ids=run.ids).logits[0, -1].detach()
    found = run.attribute(TargetSpec(-1, gauge="raw"))
    assert found.logit == pytest.approx(float(own.max()), abs=1e-6)
    assert 8.0 * np.tanh(found.explained / 8.0) == pytest.approx(found.logit, abs=1e-6)
    assert abs(found.explained - found.logit) > 1e-4


def test_scale_constants_of_granite_are_found() -> None:
    from transformers import GraniteConfig

    from tests.support.tiny_models import GROUPED

    config = GraniteConfig(**GROUPED, embedding_multiplier=3.0, residual_multiplier=0.4, logits_scaling=2.5, attention_multiplier=0.3)
    attributor = Attributor(randomised(config))
    assert attributor.family == "generic"
    assert attributor.reader.scale == 1 / 2.5
    run = attributor.run(tokens(8))
    found = run.attribute(TargetSpec(-1))
    own = attributor.model(input_ids=run.ids).logits[0, -1].detach()
    assert found.explained == pytest.approx(float(own.max() - own.mean()), abs=1e-6)
    assert max(found.closure, found.node_error) < 1e-10


def test_the_bias_of_the_output_head_is_part_of_what_is_explained() -> None:
    model = tiny_model("phi")
    run = Attributor(model).run(tokens(8))
    own, bias = model(input_ids=run.ids).logits[0, -1].detach(), model.lm_head.bias.detach()
    found, against = run.attribute(TargetSpec(-1, 40)), run.attribute(TargetSpec(-1, 40, 50))
    assert found.explained == pytest.approx(float(own[40] - own.mean()), abs=1e-6)
    assert against.explained == pytest.approx(float(own[40] - own[50]), abs=1e-6)
    assert abs(float(bias.mean())) > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_half_precision_weights_are_decomposed_in_float32(name: str, dtype: torch.dtype) -> None:
    model = tiny_model(name, dtype)
    attributor = Attributor(model)
    run = attributor.run(tokens(9))
    assert run.final_state(0).dtype == torch.float32
    found = run.attribute(TargetSpec(-1))
    assert max(found.closure, found.node_error) < 2e-6
    raised = Attributor(tiny_model(name, dtype).float()).run(tokens(9)).attribute(TargetSpec(-1, found.token_id))
    np.testing.assert_allclose(found.scores, raised.scores, atol=5e-3)  # Gemma rounds its embedding's scale to the weights' format
    assert 0 < attributor.replay_gap < 0.1
    assert {p.dtype for p in model.parameters()} == {dtype}


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (TargetSpec(10), "outside the 10 tokens"),
        (TargetSpec(-11), "outside the 10 tokens"),
        (TargetSpec(-1, 97), "outside the vocabulary of 97"),
        (TargetSpec(-1, 5, 5), "the explained token itself"),
        (TargetSpec(-1, 5, gauge="foil"), "needs a foil"),
    ],
)
def test_impossible_targets_are_refused(run: ForwardPass, target: TargetSpec, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        run.attribute(target)


def test_an_empty_prompt_is_refused(attributor: Attributor) -> None:
    with pytest.raises(BadInputError, match="no tokens"):
        attributor.run(torch.zeros(0, dtype=torch.long))


def test_broken_weights_are_reported_as_the_models_fault() -> None:
    model = tiny_model("llama")
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = torch.nan
    run = Attributor(model).run(tokens(5))
    with pytest.raises(ModelOutputError, match="NaN or infinite"):
        run.attribute(TargetSpec(-1))


def test_an_output_that_does_not_close_is_never_given(run: ForwardPass, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "CLOSURE_TOLERANCE", 1e-18)
    with pytest.raises(ConservationError):
        run.attribute(TargetSpec(-1))


def test_a_model_whose_mlp_is_not_frozen_rightly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from tracestore.extract import freeze

    monkeypatch.setattr(freeze, "frozen_gate", lambda forward: forward)  # the gate's own gradient counts too
    with pytest.raises(UnsupportedModelError, match="does not close"):
        Attributor(tiny_model("llama"))


def test_no_logits_of_all_positions_are_computed(attributor: Attributor, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*_: Any) -> Any:
        raise AssertionError("the output head ran over the prompt")

    monkeypatch.setattr(attributor.model.lm_head, "forward", forward)
    assert attributor.run(tokens(6)).attribute(TargetSpec(-1)).closure < 1e-10


def test_hidden_states_are_taken_before_the_final_norm(attributor: Attributor, run: ForwardPass) -> None:
    """Trap: transformers' last hidden state is after the final norm."""
    theirs = attributor.model(input_ids=run.ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(run.final_state(9), theirs[-1][0, 9].detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(run.capture.pre[2].detach(), theirs[2].detach(), atol=1e-5, rtol=1e-5)
    assert float((run.capture.pre[3] - theirs[-1]).detach().abs().max()) > 0.1


def test_a_forward_pass_is_freed_without_the_garbage_collector(attributor: Attributor) -> None:
    gc.collect()
    gc.disable()
    try:
        run = attributor.run(tokens(6))
        run.attribute(TargetSpec(-1))
        held = [ref(tensor) for tensor in (run.capture.x0, run.capture.pre[1], run.capture.final)]
        del run
        assert [tensor() for tensor in held] == [None] * 3
    finally:
        gc.enable()


def test_attributing_twice_gives_the_same(run: ForwardPass) -> None:
    first, second = run.attribute(TargetSpec(6)), run.attribute(TargetSpec(6))
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.graph.edges.weight, second.graph.edges.weight)
