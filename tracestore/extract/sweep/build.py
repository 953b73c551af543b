"""Build a tiny model of a causal-LM class with every parameter at random, in float64 where its code can run in it.

1. Configuration by `configs`; model by AutoModelForCausalLM, as a user would get it. It is counted on the meta device first.
2. Matrices are drawn with a spread that keeps attention uneven; every vector (bias, gain, sink, decay) is moved by noise, so that
   nothing cancels by being zero or one.
3. A forward pass in float64; where that raises (code that insists on float32), the model is kept in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tracestore.extract.sweep.configs import tiny_config

LENGTH: Final = 10
LARGEST: Final = 20_000_000
_FIRST_ORDINARY, _LAST_ORDINARY = 5, 95  # token ids that are no special tokens in any tiny configuration


class NotBuildableError(Exception):
    """The class cannot be built or run here; the message says what failed."""


@dataclass(frozen=True, slots=True)
class Built:
    """A tiny model with random weights and one prompt [1, T] for it."""

    model: Any
    model_type: str
    class_name: str
    input_ids: Tensor
    dtype: str


def class_names() -> dict[str, str]:
    """Give every model_type of the causal-LM mapping with the name of its class, sorted."""
    return dict(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()))


def build(model_type: str, seed: int = 0) -> Built:
    """Build one architecture; raises NotBuildableError."""
    stage = "its configuration could not be made"
    try:
        config = tiny_config(model_type)
        _plain_experts(config)
        stage = "the model could not be built"
        with torch.device("meta"):
            parameters = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
        if parameters > LARGEST:
            raise NotBuildableError(f"its smallest configuration found has {parameters:,} parameters")
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
        randomise(model, torch.Generator().manual_seed(seed))
        input_ids = torch.randint(_FIRST_ORDINARY, _LAST_ORDINARY, (1, LENGTH), generator=torch.Generator().manual_seed(seed + 1))
        stage = "a plain forward pass failed"
        dtype = _widest(model, input_ids)
    except NotBuildableError:
        raise
    except Exception as error:
        raise NotBuildableError(f"{stage} with transformers' own code: {type(error).__name__}: {first_line(error)}") from error
    return Built(model, model_type, type(model).__name__, input_ids, dtype)


def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw every parameter anew, and move routers' correction buffers, in place."""
    with torch.no_grad():
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.dim() < 2:
                    parameter.add_(0.3 * noise.to(parameter.dtype))
                elif isinstance(module, nn.Embedding):
                    parameter.copy_(0.6 * noise)
                else:
                    parameter.copy_(1.2 * noise / parameter.shape[-1] ** 0.5)
            for name, buffer in module.named_buffers(recurse=False):
                if name.endswith("correction_bias"):
                    buffer.add_(0.1 * torch.randn(buffer.shape, generator=generator).to(buffer.dtype))


def first_line(error: BaseException) -> str:
    """Give the first line of an error's message, shortened."""
    lines = str(error).strip().splitlines()
    return " ".join(lines[0].split())[:180] if lines else "no message"


def _plain_experts(config: Any) -> None:
    """Choose the experts' plain loop: the grouped kernels have no float64."""
    for part in (config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", {}))):
        if part is not None:
            part._experts_implementation = "eager"


def _widest(model: Any, input_ids: Tensor) -> str:
    wide = model.to(torch.float64)
    try:
        return _ran(wide, input_ids, "float64")
    except (RuntimeError, ValueError, TypeError):
        return _ran(model.to(torch.float32), input_ids, "float32")


def _ran(model: Any, input_ids: Tensor, dtype: str) -> str:
    with torch.no_grad():
        logits = model(input_ids=input_ids, use_cache=False).logits
    if not bool(torch.isfinite(logits).all()):
        raise NotBuildableError("its logits are not finite with random weights")
    return dtype
