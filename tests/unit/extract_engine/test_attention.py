"""The frozen attention function: its pattern, its gradient, its tiles; and the mask that must be registered with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.masking_utils import AttentionMaskInterface

from tests.support.tiny_models import randomised, tiny_model, tokens
from tracestore.errors import UnsupportedModelError
from tracestore.extract import attention
from tracestore.extract.attention import AttentionState, FrozenAttention, Pattern, probabilities
from tracestore.extract.attribute import Attributor
from tracestore.extract.attribution import TargetSpec
from tracestore.extract.edges import EdgeCollector
from tracestore.extract.identities import EVERY_EDGE, dense_edges

HEADS, GROUPS, LENGTH, WIDTH = 4, 2, 11, 6


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(query: Tensor, key: Tensor, allowed: Tensor, softcap: float | None, sinks: Tensor | None) -> Tensor:
    """Probabilities [B, H, T, T] the long way."""
    scores = query @ key.repeat_interleave(HEADS // GROUPS, 1).transpose(2, 3) * 0.5
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~allowed, -torch.inf)
    if sinks is None:
        return scores.softmax(-1)
    return torch.cat([scores, sinks.view(1, HEADS, 1, 1).expand(*scores.shape[:3], 1)], -1).softmax(-1)[..., :-1]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("with_sinks", [False, True])
@pytest.mark.parametrize("tile", [3, 256])
def test_output_gradient_and_edges_equal_the_long_way(
    masked: bool, softcap: float | None, with_sinks: bool, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "TILE_ROWS", tile)
    query, key = draw(2, HEADS, LENGTH, WIDTH, seed=1), draw(2, GROUPS, LENGTH, WIDTH, seed=2)
    value = draw(2, GROUPS, LENGTH, 5, seed=3).requires_grad_(True)
    allowed = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    if masked:
        allowed = allowed & torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(-3)  # a window
    sinks = draw(HEADS, seed=4) if with_sinks else None
    pattern = Pattern(0.5, not masked, allowed[None, None].expand(2, 1, -1, -1) if masked else None, softcap, sinks)
    state = AttentionState(layer_of={})
    state.value_bias[0] = draw(GROUPS, 5, seed=5)
    out = FrozenAttention.apply(query, key, value, pattern, 0, state)
    a = reference(query, key, allowed, softcap, sinks)
    repeated = value.repeat_interleave(HEADS // GROUPS, 1)
    torch.testing.assert_close(out, (a @ repeated).transpose(1, 2))
    gz = draw(2, LENGTH, HEADS, 5, seed=6)
    gz[0] = 0
    gz[1, 7:] = 0  # rows after the target
    state.sink = sink = EdgeCollector((1, HEADS, LENGTH), (6,), 10_000, query, batch=1)
    (dv,) = torch.autograd.grad(out, value, gz, retain_graph=True)
    (expected,) = torch.autograd.grad((a @ repeated).transpose(1, 2), value, gz)
    torch.testing.assert_close(dv, expected)
    linear = (value.detach() - state.value_bias[0][:, None]).repeat_interleave(HEADS // GROUPS, 1)[1]
    edges = a[1] * torch.einsum("ihd,hjd->hij", gz[1], linear)
    torch.testing.assert_close(sink.value.row[0], edges.sum(2))
    torch.testing.assert_close(sink.value.row_abs[0], edges.abs().sum(2))
    torch.testing.assert_close(sink.value.column[0], edges.sum((0, 1)))
    torch.testing.assert_close(sink.value.column_abs[0], edges.abs().sum((0, 1)))
    torch.testing.assert_close(sink.value.direct[0], edges[:, 6].abs().sum(0))
    torch.testing.assert_close(sink.relevance[0], sink.value.row[0] + sink.bias[0])
    found = sink.edges()
    assert len(found) == int((edges != 0).sum())
    np.testing.assert_allclose(found.weight, edges[found.head, found.query, found.key].numpy(), atol=1e-12)
    np.testing.assert_allclose(found.attention, a[1][found.head, found.query, found.key].numpy(), atol=1e-12)


def test_rows_that_may_see_nothing_are_zero() -> None:
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
    mask[:, :, 0] = False
    pattern = Pattern(1.0, False, mask, None, None)
    a = probabilities(pattern, draw(HEADS, 4, WIDTH, seed=1), draw(GROUPS, 4, WIDTH, seed=2), torch.arange(4), 0)
    assert not bool(a[:, 0].any())
    torch.testing.assert_close(a[:, 1:].sum(-1), torch.ones(HEADS, 3, dtype=torch.float64))


def test_tiles_do_not_change_an_attribution(monkeypatch: pytest.MonkeyPatch) -> None:
    attributor, ids = Attributor(tiny_model("gemma2")), tokens(13)
    whole = attributor.run(ids).attribute(TargetSpec(-1), EVERY_EDGE)
    monkeypatch.setattr(attention, "TILE_ROWS", 4)
    tiled = attributor.run(ids).attribute(TargetSpec(-1), EVERY_EDGE)
    np.testing.assert_allclose(dense_edges(tiled), dense_edges(whole), atol=1e-12)
    np.testing.assert_allclose(tiled.tops.weight, whole.tops.weight, atol=1e-12)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_without_a_registered_mask_the_model_would_see_the_future_and_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: an attention function without its mask function gets no mask. Ours falls back on causality; padding would be lost."""
    ids = tokens(8)
    attributor = Attributor(tiny_model(name))
    logits = attributor.run(ids).logits_row(-1)
    own = attributor.model(input_ids=ids[None]).logits[0, -1].detach()
    torch.testing.assert_close(logits, own, atol=1e-5, rtol=1e-5)
    assert AttentionMaskInterface._global_mapping[attention.NAME] is not None
    monkeypatch.delitem(AttentionMaskInterface._global_mapping, attention.NAME)
    monkeypatch.setattr(AttentionMaskInterface, "register", lambda *_: None)
    padded, mask = torch.cat([ids[:3], ids]), torch.tensor([0] * 3 + [1] * 8)
    where = (mask.cumsum(0) - 1).clamp_min(0)[None]
    lost = attributor.run(padded[None], attention_mask=mask[None], position_ids=where).logits_row(-1)
    assert float((lost - own).abs().max()) > 0.01  # the padding was attended to: the test would see a missing mask


def test_a_bidirectional_model_is_refused() -> None:
    model = tiny_model("llama")
    for layer in model.model.layers:
        layer.self_attn.is_causal = False
    with pytest.raises(UnsupportedModelError, match="later tokens"):
        Attributor(model)


def test_an_unknown_argument_of_the_attention_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama import modeling_llama

    plain = modeling_llama.LlamaAttention.forward

    def forward(self: object, *args: object, **kwargs: object) -> object:
        return plain(self, *args, **kwargs, strange_scores=torch.zeros(1))

    monkeypatch.setattr(modeling_llama.LlamaAttention, "forward", forward)
    with pytest.raises(UnsupportedModelError, match="strange_scores"):
        Attributor(randomised(tiny_model("llama").config))
