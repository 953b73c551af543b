"""Knockouts against the models' own eager code, on families that differ in masks, windows, ALiBi, sinks, norms and grouping."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.masked_softmax import last_logits
from tests.support.tiny_models import tiny_model, tokens
from tracestore.errors import BadInputError, ModelOutputError
from tracestore.extract.attribute import Attributor
from tracestore.extract.knockouts.measure import BATCH_TOKENS, KnockoutRunner
from tracestore.extract.knockouts.removal import Removal, Target, together
from tracestore.extract.sweep.build import build

LENGTH = 9
TOKEN, FOIL = 5, 11
COLUMNS = ((0,), (3,), (2, 4, 6), (7,))
EDGES = ((0, 1, 8, 8), (1, 2, 8, 6), (1, 0, 5, 4), (2, 3, 8, 5))
FAMILIES = ("gpt2", "llama", "mistral", "qwen3", "gemma2", "gemma3_text", "bloom", "mpt", "gpt_oss")
PRIVATE = ("bloom", "mpt", "gpt_oss")
TOLERANCE = 3e-6
"""The models' eager code takes its softmax in float32."""


@cache
def runner_of(family: str) -> KnockoutRunner:
    model = build(family).model if family in PRIVATE else tiny_model(family)
    return KnockoutRunner(Attributor(model))


@pytest.fixture(scope="module", params=FAMILIES)
def runner(request: pytest.FixtureRequest) -> KnockoutRunner:
    return runner_of(request.param)


def prompt() -> Tensor:
    return tokens(LENGTH, seed=3) + 2


def target(gauge: Any = "centred", foil: int | None = None, pos: int = LENGTH - 1) -> Target:
    return Target(pos, (TOKEN,), gauge, foil)


def explained(runner: KnockoutRunner, logits: Tensor, gauge: str) -> float:
    """Take the explained quantity from reported logits: the softcap undone first."""
    cap = runner.attributor.reader.cap
    raw = logits.double() if cap is None else cap * torch.atanh(logits.double() / cap)
    against = {"raw": 0.0, "centred": float(raw.mean()), "foil": float(raw[FOIL])}[gauge]
    return float(raw[TOKEN]) - against


def test_columns_and_edges_equal_the_models_own_code_without_them(runner: KnockoutRunner) -> None:
    ids, (layers, heads) = prompt(), runner.shape
    edges = [edge for edge in EDGES if edge[0] < layers and edge[1] < heads]
    removals = [Removal(), *(Removal(columns=c) for c in COLUMNS), *(Removal(edges=(e,)) for e in edges)]
    measured = runner.measure(ids.tolist(), target(), removals)
    effects = []
    for removal, found in zip(removals, measured, strict=True):
        logits = last_logits(runner.attributor.model, ids[None], layers=layers, columns=removal.columns, edges=removal.edges)
        assert found.explained == pytest.approx(explained(runner, logits, "centred"), abs=TOLERANCE)
        assert found.logp == pytest.approx(float(torch.log_softmax(logits.double(), -1)[TOKEN]), abs=TOLERANCE)
        assert found.top_token == int(logits.argmax())
        effects.append(abs(found.explained - measured[0].explained))
    assert len(edges) >= 2
    assert min(effects[1:]) > 3 * TOLERANCE  # every removal shows, or equality would mean nothing


def test_a_batch_equals_its_rows_one_by_one(runner: KnockoutRunner) -> None:
    removals = [
        Removal(),
        Removal(columns=(2,), heads=((1, 0),)),
        Removal(edges=((0, 1, 8, 7), (1, 1, 6, 5))),
        Removal(mean_embeddings=(4, 8)),
    ]
    at_once = runner.measure(prompt().tolist(), target(), removals)
    for one, batched in zip(removals, at_once, strict=True):
        (alone,) = runner.measure(prompt().tolist(), target(), [one])
        assert (alone.explained, alone.logp) == pytest.approx((batched.explained, batched.logp), abs=1e-5)


def test_the_model_is_left_as_it_was(runner: KnockoutRunner) -> None:
    model, ids = runner.attributor.model, prompt()[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        runner.measure(ids[0].tolist(), target(), [Removal(columns=(1,), heads=((0, 0),), mean_embeddings=(2,))])
        assert torch.equal(model(input_ids=ids).logits, before)


def test_a_column_at_the_edge_of_attention_mask_is_that_mask() -> None:
    runner = runner_of("llama")
    ids = prompt()
    (found,) = runner.measure(ids.tolist(), target("raw"), [Removal(columns=(0, 1))])
    mask = torch.ones(1, LENGTH, dtype=torch.long)
    mask[:, :2] = 0
    with torch.no_grad():
        logits = runner.attributor.model(input_ids=ids[None], attention_mask=mask, position_ids=torch.arange(LENGTH)[None]).logits[0, -1]
    assert found.explained == pytest.approx(float(logits[TOKEN]), abs=1e-9)


@pytest.mark.parametrize("gauge", ["centred", "foil", "raw"])
def test_what_is_explained_is_read_in_the_targets_gauge(gauge: str) -> None:
    runner = runner_of("gemma2")  # has a final softcap
    (found,) = runner.measure(prompt().tolist(), target(gauge, FOIL if gauge == "foil" else None), [Removal(columns=(3,))])
    logits = last_logits(runner.attributor.model, prompt()[None], layers=runner.shape[0], columns=(3,))
    assert found.explained == pytest.approx(explained(runner, logits, gauge), abs=TOLERANCE)


@pytest.mark.parametrize(("family", "projection"), [("llama", "o_proj"), ("gpt2", "c_proj"), ("bloom", "dense")])
def test_a_head_without_output_is_a_zeroed_input_of_the_projection(family: str, projection: str) -> None:
    runner = runner_of(family)
    layer, head = 1, 2
    (found,) = runner.measure(prompt().tolist(), target("raw"), [Removal(heads=((layer, head),))])
    block = runner.attributor.layout.blocks[layer]
    width = runner.attributor.layout.width // runner.shape[1]

    def zero(_module: Any, args: tuple[Tensor]) -> tuple[Tensor]:
        changed = args[0].clone()
        changed[..., head * width : (head + 1) * width] = 0
        return (changed,)

    hook = block.attention.get_submodule(projection).register_forward_pre_hook(zero)
    try:
        logits = last_logits(runner.attributor.model, prompt()[None], layers=runner.shape[0])
    finally:
        hook.remove()
    assert found.explained == pytest.approx(float(logits[TOKEN]), abs=TOLERANCE)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_mean_embedding_is_the_vocabularys(family: str) -> None:
    runner = runner_of(family)
    model = runner.attributor.model
    weight = model.get_input_embeddings().weight
    embeddings = weight[prompt()].clone()
    embeddings[4] = weight.mean(0)
    with torch.no_grad():
        logits = model(inputs_embeds=embeddings[None]).logits[0, -1]
    (found,) = runner.measure(prompt().tolist(), target("raw"), [Removal(mean_embeddings=(4,))])
    assert found.explained == pytest.approx(float(logits[TOKEN]), abs=1e-9)


def test_an_embedding_that_scales_is_averaged_scaled() -> None:
    runner = runner_of("gemma3_text")
    model = runner.attributor.model
    every = model.get_input_embeddings()(torch.arange(97)).mean(0)
    assert torch.allclose(runner._mean_embedding(), every.double())
    assert not torch.allclose(every, model.get_input_embeddings().weight.mean(0))


def test_several_targets_add_up_and_what_follows_them_does_not_matter() -> None:
    runner, ids = runner_of("llama"), prompt().tolist()
    removal = Removal(columns=(2,))
    (whole,) = runner.measure(ids, Target(7, (4, TOKEN), "centred"), [removal])
    parts = [runner.measure(ids, Target(pos, (token,), "centred"), [removal])[0] for pos, token in ((6, 4), (7, TOKEN))]
    assert whole.explained == pytest.approx(sum(part.explained for part in parts), abs=1e-9)
    assert whole.logp == pytest.approx(sum(part.logp for part in parts), abs=1e-9)
    assert runner.measure([*ids[:8], 50], Target(7, (4, TOKEN), "centred"), [removal]) == [whole]


def test_more_removals_than_a_batch_holds_come_in_order() -> None:
    runner = runner_of("llama")
    rows = BATCH_TOKENS // LENGTH
    removals = [Removal(columns=(1 + n % 7,)) for n in range(rows + 3)]
    counts: list[int] = []
    found = runner.measure(prompt().tolist(), target(), removals, progress=counts.append)
    assert counts == [rows, 3]
    assert [f.explained for f in found[rows:]] == pytest.approx([found[n % 7].explained for n in range(rows, rows + 3)], abs=1e-9)


def test_half_precision_is_raised_and_agrees_with_the_same_weights_in_float32() -> None:
    half = tiny_model("gpt2", torch.bfloat16)
    exact = tiny_model("gpt2", torch.bfloat16).float()
    removals = [Removal(), Removal(columns=(3,)), Removal(heads=((0, 1),), mean_embeddings=(2,))]
    found, wanted = (KnockoutRunner(Attributor(m)).measure(prompt().tolist(), target(), removals) for m in (half, exact))
    assert [f.explained for f in found] == pytest.approx([w.explained for w in wanted], abs=1e-4)


@pytest.mark.parametrize(
    ("removal", "reason"),
    [
        (Removal(columns=(8,)), "whose prediction is explained"),
        (Removal(columns=(9,)), "comes after position 8"),
        (Removal(mean_embeddings=(-1,)), "count from 0"),
        (Removal(columns=tuple(range(8))), "every token"),
        (Removal(mean_embeddings=tuple(range(9))), "every token"),
        (Removal(edges=((0, 0, 3, 4),)), "no attention edge from position 4 to 3"),
        (Removal(edges=((0, 0, 9, 4),)), "comes after"),
        (Removal(edges=((0, 0, 0, 0),)), "all that L0.H0 can read"),
        (Removal(edges=((0, 0, 8, 2),)), "outside its window"),
        (Removal(heads=((3, 0),)), r"no head L3\.H0"),
        (Removal(edges=((0, 4, 3, 2),)), r"no head L0\.H4"),
    ],
)
def test_a_removal_that_makes_no_sense_is_refused(removal: Removal, reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        runner_of("mistral").measure(prompt().tolist(), target(), [removal])


def test_a_target_outside_the_prompt_is_refused() -> None:
    with pytest.raises(BadInputError, match="outside the 9 tokens"):
        runner_of("llama").measure(prompt().tolist(), target(pos=9), [Removal()])


def test_logits_that_are_not_finite_are_refused() -> None:
    model = tiny_model("llama", torch.float32)
    runner = KnockoutRunner(Attributor(model))
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ModelOutputError, match="NaN or infinite"):
        runner.measure(prompt().tolist(), target(), [Removal()])


def test_removals_join() -> None:
    joined = together([Removal(columns=(3,)), Removal(columns=(1, 3), heads=((0, 1),)), Removal(mean_embeddings=(2,))])
    assert joined == Removal(columns=(1, 3), heads=((0, 1),), mean_embeddings=(2,))
