"""Baselines on families that put something between heads and residual stream, or between embeddings and layers: counted, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.support.tiny_models import randomised, tiny_model, tokens
from tracestore.errors import UnsupportedModelError
from tracestore.evaluate.attention_maps import attention_maps
from tracestore.evaluate.baselines import attention, gradients
from tracestore.evaluate.case import Case
from tracestore.extract.attribute import Attributor

LENGTH = 9


def case_of(model: torch.nn.Module) -> Case:
    return Case("case", "task", Attributor(model), tuple(tokens(LENGTH).tolist()), 11)


@pytest.mark.parametrize("family", ["gemma2", "olmo2"])
def test_what_heads_add_has_passed_the_norm_behind_them(family: str) -> None:
    model = tiny_model(family)
    case = case_of(model)
    received: list[torch.Tensor] = []
    handles = [
        layer.post_attention_layernorm.register_forward_hook(lambda _m, _a, out: received.append(out[0])) for layer in model.model.layers
    ]
    with torch.no_grad():
        maps = attention_maps(case.attributor, case.ids)
    for handle in handles:
        handle.remove()
    for layer, block, real in zip(maps.layers, case.attributor.layout.blocks, received, strict=True):
        bias = getattr(block.attention.o_proj, "bias", None)
        for pos in range(LENGTH):
            sums = torch.einsum("hj,hjd->d", layer.a[:, pos], layer.moved) + (0 if bias is None else bias)
            torch.testing.assert_close(layer.added(sums, pos), real[pos].detach(), rtol=1e-5, atol=1e-6)
    assert attention.ifr(case).sum() == pytest.approx(1.0, abs=1e-5)


def test_heads_write_through_the_output_projection_though_another_one_comes_last() -> None:
    case = case_of(tiny_model("phi3"))  # its fused projection of queries, keys and values is the last of its linear layers
    for layer, block in zip(attention_maps(case.attributor, case.ids).layers, case.attributor.layout.blocks, strict=True):
        projection: Any = block.attention.o_proj
        torch.testing.assert_close(layer.output_weight.flatten(0, 1).T, projection.weight.detach())
    assert attention.direct_logit(case).shape == (LENGTH,)


def test_a_factor_behind_the_heads_is_refused_where_what_they_write_matters() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.GraniteConfig(vocab_size=97, residual_multiplier=0.3, bos_token_id=1, eos_token_id=2, pad_token_id=0, **sizes)
    case = case_of(randomised(config))
    for method in (attention.attention_norm, attention.direct_logit, attention.alti, attention.ifr):
        with pytest.raises(UnsupportedModelError, match="GraniteAttention write is not what"):
            method(case)
    assert attention.raw_attention(case).sum() == pytest.approx(1.0)


def test_gradients_along_embeddings_that_a_norm_reads_are_refused() -> None:
    config = transformers.BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
    case = case_of(randomised(config))
    for method in (gradients.gradient_x_input, gradients.integrated_gradients):
        with pytest.raises(UnsupportedModelError, match="along them its gradient is zero"):
            method(case)
    assert np.isfinite(gradients.saliency(case)).all()
    assert np.abs(gradients.gradient_x_input(case_of(tiny_model("gpt2")))).max() > 1e-3
