"""Norms are recognised by what they compute."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tests.support.tiny_models import tiny_model
from tracestore.errors import UnsupportedModelError
from tracestore.extract.attribute import Attributor
from tracestore.extract.norms import recognise

WIDTH = 16


def randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return module


class NoWeightNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], eps=1e-5)


class LayerNorm1P(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, self.normalized_shape, self.weight + 1, self.bias, self.eps)


class MaxNorm(nn.Module):
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / x.abs().amax(-1, keepdim=True)


@pytest.mark.parametrize(
    ("module", "centred", "has_bias"),
    [
        (LlamaRMSNorm(WIDTH, eps=1e-5), False, False),
        (GemmaRMSNorm(WIDTH, eps=1e-6), False, False),
        (nn.RMSNorm(WIDTH, eps=1e-3), False, False),
        (nn.LayerNorm(WIDTH), True, True),
        (nn.LayerNorm(WIDTH, bias=False), True, False),
        (LayerNorm1P(WIDTH), True, True),
        (NoWeightNorm(), True, False),
    ],
    ids=["rms", "one-plus-weight", "torch-rms", "layer", "layer-no-bias", "layer-one-plus-weight", "no-weight"],
)
def test_a_known_form_is_found_and_gives_the_same_numbers(module: nn.Module, centred: bool, has_bias: bool) -> None:
    randomised(module)
    form = recognise(module, WIDTH)
    assert form is not None
    assert (form.centred, form.bias is not None) == (centred, has_bias)
    x = 3 * torch.randn(4, 5, WIDTH, generator=torch.Generator().manual_seed(1)) + 1
    torch.testing.assert_close(form(x), module(x), atol=2e-6, rtol=2e-6)


def test_the_scale_carries_no_gradient_and_the_centring_does() -> None:
    form = recognise(randomised(nn.LayerNorm(WIDTH)), WIDTH)
    assert form is not None
    x = torch.randn(WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_(True)
    seed = torch.randn(WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (g,) = torch.autograd.grad(form(x), x, seed)
    assert form.weight is not None
    scaled = seed * form.weight.double() / torch.sqrt(x.detach().var(correction=0) + form.eps)
    torch.testing.assert_close(g, scaled - scaled.mean())


def test_an_unknown_form_is_not_recognised_and_its_model_is_refused_by_name() -> None:
    assert recognise(MaxNorm(), WIDTH) is None
    model = tiny_model("llama")
    model.model.layers[1].input_layernorm = type("StrangeNorm", (MaxNorm,), {})(32)
    with pytest.raises(UnsupportedModelError, match="StrangeNorm"):
        Attributor(model)
