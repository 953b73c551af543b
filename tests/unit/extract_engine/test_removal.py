"""What hiding a token would take away, to first order, against naive loops and real hiding; and the ranking `drive`, by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from tests.support.masked_softmax import MaskedSoftmax, eager
from tests.support.tiny_models import CONFIGS, GROUPED, randomised, tokens
from tracestore.extract.attention import KeptAttention, Pattern
from tracestore.extract.attribute import Attributor, ForwardPass
from tracestore.extract.attribution import Floats, TargetSpec
from tracestore.extract.edges import LEAST_LEFT, EdgeCollector
from tracestore.model import Method

LENGTH, TOKEN, FOIL = 8, 7, 11


FAMILIES: dict[str, Callable[[], Any]] = {
    **{name: CONFIGS[name] for name in ("gpt2", "llama", "mistral", "gemma2", "qwen3", "gpt_neox")},
    "bloom": lambda: transformers.BloomConfig(vocab_size=97, hidden_size=32, n_layer=3, n_head=4),  # ALiBi
    "gpt_oss": lambda: transformers.GptOssConfig(  # learnt sinks
        **GROUPED, head_dim=8, num_local_experts=4, num_experts_per_tok=2, rope_parameters={"rope_type": "default", "rope_theta": 1e4}
    ),
}


def attributor(name: str) -> Attributor:
    return Attributor(randomised(FAMILIES[name]()))


def pattern_of(pattern: Pattern, query: Tensor, key: Tensor) -> Floats:
    """Probabilities [T, T] of one head, `query` and `key` [T, D], row by row."""
    scores = (query @ key.T * pattern.scaling).detach().numpy()
    if pattern.softcap is not None:
        scores = pattern.softcap * np.tanh(scores / pattern.softcap)
    return np.asarray(scores)


def attend(kept: KeptAttention, head: int, row: int) -> tuple[Floats, Floats]:
    """One row's probabilities [T] and the values [T, D] that it reads."""
    group = head // (kept.query.shape[1] // kept.key.shape[1])
    pattern, length = kept.pattern, kept.query.shape[2]
    scores = pattern_of(pattern, kept.query[0, head], kept.key[0, group])[row].astype(np.float64)
    if pattern.mask is None:
        scores[row + 1 :] = -np.inf
    else:
        mask = pattern.mask[0, head if pattern.mask.shape[1] > 1 else 0, row].numpy()
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    powers = np.array([np.exp(score) for score in scores])
    whole = powers.sum() + (0.0 if pattern.sinks is None else np.exp(float(pattern.sinks[head].detach())))
    assert powers.shape == (length,)
    return powers / whole, kept.value[0, group].detach().numpy()


def gradients(run: ForwardPass, pos: int, vector: Tensor) -> dict[int, Floats]:
    """Give the method's gradient [T, H, D] of < `vector`, final state at `pos` > at every layer's attention output."""
    kept = run.capture.state.kept
    assert run.capture.final is not None
    outs = [kept[layer].out for layer in sorted(kept)]
    found = torch.autograd.grad(run.capture.final[0, pos], outs, vector, retain_graph=True)
    return {layer: gradient[0].numpy() for layer, gradient in zip(sorted(kept), found, strict=True)}


def hidden_by_loops(run: ForwardPass, pos: int, vector: Tensor) -> Floats:
    """What every row that loses a key loses: its output, shared out anew among the other keys, against the gradient at it."""
    lost = np.zeros(run.length)
    for layer, gz in gradients(run, pos, vector).items():
        kept = run.capture.state.kept[layer]
        for head in range(kept.query.shape[1]):
            for row in range(run.length):
                a, values = attend(kept, head, row)
                output = sum(a[key] * values[key] for key in range(run.length))
                for key in range(row):  # not its own
                    without = sum(a[other] * values[other] for other in range(run.length) if other != key) / (1 - a[key])
                    share = min(1.0, (1 - a[key]) / LEAST_LEFT)
                    lost[key] += share * float(gz[row, head] @ (output - without))
    return lost


@pytest.mark.parametrize("method", ["frozen", "secant"])
@pytest.mark.parametrize("name", FAMILIES)
def test_it_equals_what_loops_over_heads_rows_and_keys_give(name: str, method: Method) -> None:
    one = attributor(name)
    run = one.run(tokens(LENGTH), method=method, keep=True)
    for pos in (LENGTH - 1, 4):
        found = run.attribute(TargetSpec(pos, TOKEN))
        vector, _ = one.reader.direction(found.gauge, TOKEN, None, run.final_state(pos))
        expected = hidden_by_loops(run, pos, vector)
        np.testing.assert_allclose(found.removal, expected, rtol=0, atol=1e-9 * max(1.0, np.abs(expected).max()))
        assert np.abs(expected[:pos]).min() > 1e-7  # of numbers, not of zeros
        assert {-1.0, 1.0} <= set(np.sign(expected))
        assert not found.removal[pos:].any()


@pytest.mark.parametrize("method", ["frozen", "secant"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_it_is_linear_in_the_target(name: str, method: Method) -> None:
    run = attributor(name).run(tokens(LENGTH), method=method)
    both = run.attribute(TargetSpec(-1, TOKEN, FOIL)).removal
    one, other = (run.attribute(TargetSpec(-1, token, gauge="raw")).removal for token in (TOKEN, FOIL))
    np.testing.assert_allclose(one - other, both, rtol=0, atol=1e-10)
    assert np.abs(both).max() > 1e-3


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize(("name", "method"), [("llama", "secant"), ("mistral", "frozen"), ("gpt2", "secant"), ("gpt_oss", "frozen")])
def test_it_is_the_same_in_a_padded_batch(name: str, method: Method, left: bool) -> None:
    one, ids, pad = attributor(name), tokens(LENGTH), 3
    alone = one.run(ids, method=method).attribute(TargetSpec(-1, TOKEN)).removal
    padding = torch.full((pad,), 3)
    rows = torch.stack([torch.cat([padding, ids] if left else [ids, padding]), torch.cat([ids.flip(0), ids[:pad]])])
    mask = torch.ones_like(rows)
    mask[0, slice(0, pad) if left else slice(LENGTH, None)] = 0
    run = one.run(rows, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp_min(0), method=method)
    start = pad if left else 0
    found = run.attribute(TargetSpec(start + LENGTH - 1, TOKEN), batch=0).removal
    np.testing.assert_allclose(found[start : start + LENGTH], alone, rtol=0, atol=1e-9)
    assert not np.delete(found, np.arange(start, start + LENGTH)).any()


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_of_one_layer_it_is_what_hiding_the_key_does_to_the_heads_of_the_untouched_model(name: str) -> None:
    config = CONFIGS[name]()
    config.num_hidden_layers = 1
    model = randomised(config)
    one, ids = Attributor(model), tokens(LENGTH)
    run = one.run(ids, keep=True)
    found = run.attribute(TargetSpec(-1, TOKEN))
    vector, _ = one.reader.direction(found.gauge, TOKEN, None, run.final_state(found.pos))
    gz = gradients(run, found.pos, vector)[0][found.pos].reshape(-1)
    projection = next(m for at, m in model.named_modules() if at.endswith(("o_proj", "attn.c_proj")))
    written: list[Tensor] = []
    handle = projection.register_forward_pre_hook(lambda _module, given: written.append(given[0][0, -1].detach()))
    with eager(model), torch.no_grad():
        for columns in ((), *((at,) for at in range(LENGTH))):
            with MaskedSoftmax(LENGTH, columns):
                model(input_ids=ids[None], use_cache=False)
    handle.remove()
    whole, *without = (heads.numpy() for heads in written)
    measured = np.array([gz @ (whole - heads) for heads in without])
    np.testing.assert_allclose(found.removal, measured, rtol=0, atol=1e-6)  # eager code takes its softmax in float32
    assert np.count_nonzero(np.abs(measured) > 1e-4) >= 4  # Gemma 2 sees no more in its window


def test_by_hand_a_row_without_other_keys_counts_as_if_a_little_were_left() -> None:
    sink = EdgeCollector((1, 1, 3), (2,), 10, torch.zeros(1, dtype=torch.float64))
    attention = torch.tensor([[[0.5, 0.5, 0.0], [0.99, 0.0, 0.01]]], dtype=torch.float64)
    g = torch.tensor([[[3.0, 1.0, 9.0], [4.0, 2.0, 1.0]]], dtype=torch.float64)
    relevance = torch.tensor([[2.0, 3.97]], dtype=torch.float64)
    given = attention.clone(), g.clone()
    sink.take_removals(torch.tensor([1, 2]), attention, g, relevance)
    first = 0.5 / 0.5 * (3.0 - 2.0) + 0.99 / LEAST_LEFT * (4.0 - 3.97)  # 1 - 0.99 is less than what counts as left
    np.testing.assert_allclose(sink.removal.numpy(), [first, 0.0, 0.0], rtol=1e-12)  # neither row's own key
    assert torch.equal(attention, given[0])
    assert torch.equal(g, given[1])


@pytest.fixture(scope="module")
def output() -> Any:
    return attributor("llama").run(tokens(5)).attribute(TargetSpec(3, TOKEN))


DIRECT, TOTAL, REMOVAL = [9.0, 1.0, 3.0, 4.0, 0.0], [9.0, 5.0, 3.0, 7.0, 0.0], [9.0, -1.5, 0.5, 0.0, 0.0]


def test_drive_is_the_mean_of_three_shares_of_what_can_be_hidden(output: Any) -> None:
    half, columns = np.array(DIRECT) / 2, (np.array(TOTAL) / 2, np.array(REMOVAL))
    found = replace(output, direct_value=half, direct_address=half, total_value=columns[0], total_address=columns[0], removal=columns[1])
    np.testing.assert_array_equal(found.sinks, [True, False, False, False, False])
    assert (found.direct.tolist(), found.total.tolist()) == (DIRECT, TOTAL)
    # masses on the positions 1 and 2, which are neither sink nor explained: 4, 8 and 2
    expected = [(9 / 4 + 9 / 8 + 9 / 2) / 3, (1 / 4 + 5 / 8 - 1.5 / 2) / 3, (3 / 4 + 3 / 8 + 0.5 / 2) / 3, (4 / 4 + 7 / 8) / 3, 0.0]
    np.testing.assert_allclose(found.drive, expected, rtol=1e-12)


def test_drive_leaves_out_a_part_without_mass(output: Any) -> None:
    nothing, half = np.zeros(5), np.array(DIRECT) / 2
    names = ("direct_value", "direct_address", "total_value", "total_address", "removal")
    none = replace(output, **dict.fromkeys(names, nothing))
    np.testing.assert_array_equal(none.drive, nothing)
    one = replace(none, direct_value=half, direct_address=half)
    np.testing.assert_allclose(one.drive, np.array(DIRECT) / 4 / 3, rtol=1e-12)
