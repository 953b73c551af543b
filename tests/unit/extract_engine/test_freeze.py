"""Freezing: what it computes, and that it leaves no trace on the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.support.tiny_models import tiny_model, tokens
from tracestore.extract.attribute import Attributor
from tracestore.extract.attribution import TargetSpec
from tracestore.extract.freeze import frozen_gate, frozen_ratio, linear


def test_a_frozen_activation_keeps_its_value_and_multiplies_the_gradient_by_value_over_input() -> None:
    s = torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    out = frozen_ratio(nn.functional.gelu)(s)
    torch.testing.assert_close(out, nn.functional.gelu(s))
    (g,) = torch.autograd.grad(out.sum(), s)
    torch.testing.assert_close(g, nn.functional.gelu(s).detach() / s.detach())
    assert not frozen_gate(nn.functional.silu)(s).requires_grad


@pytest.mark.parametrize(("activation", "slope"), [(nn.functional.gelu, 0.5), (nn.functional.silu, 0.5), (torch.tanh, 1.0)])
def test_at_zero_the_slope_is_the_derivative(activation: Any, slope: float) -> None:
    s = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    out = frozen_ratio(activation)(s)
    assert not bool(out.detach().any())
    (g,) = torch.autograd.grad(out.sum(), s)
    torch.testing.assert_close(g, torch.full((3,), slope, dtype=torch.float64), atol=1e-6, rtol=0)


def test_half_precision_weights_are_raised_and_not_stored_raised() -> None:
    weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    bias = torch.ones(5, dtype=torch.bfloat16)
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    out = linear(x, weight, bias)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, x @ weight.float().T + 1)
    (g,) = torch.autograd.grad(out, x, torch.ones_like(out))
    torch.testing.assert_close(g, torch.ones(2, 5) @ weight.float())


def snapshot(model: Any) -> dict[str, Any]:
    return {
        "forward": [name for name, m in model.named_modules() if "forward" in m.__dict__],
        "hooks": [name for name, m in model.named_modules() if m._forward_hooks or m._forward_pre_hooks],
        "training": [m.training for m in model.modules()],
        "gradients": [p.requires_grad for p in model.parameters()],
        "attention": model.config._attn_implementation,
        "dtypes": {p.dtype for p in model.parameters()},
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fail", [False, True])
def test_the_model_is_as_it_was_afterwards_also_when_the_pass_fails(
    dtype: torch.dtype, fail: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("gemma2", dtype)
    model.train()
    before = snapshot(model)
    attributor = Attributor(model)
    assert snapshot(model) == before
    if fail:
        mlp = model.model.layers[2].mlp
        monkeypatch.setattr(type(mlp), "forward", lambda *_: (_ for _ in ()).throw(KeyError("broken")))
        with pytest.raises(KeyError, match="broken"):
            attributor.run(tokens(5))
        monkeypatch.undo()
    else:
        run = attributor.run(tokens(5))
        run.attribute(TargetSpec(-1))
        assert all(p.grad is None for p in model.parameters())
    assert snapshot(model) == before
    assert before["training"][0]
    assert all(before["gradients"])
