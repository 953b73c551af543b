"""The reference for the judge: exact derivatives of the frozen function of `replay`, by differences of forward passes.

1. Find the decoder layers: the longest list of modules that each ran once, in order, on hidden states [1, T, d].
2. `value(...)`: replay with some hidden states that enter a layer scaled, or some attention probabilities changed.
3. The function is affine in what enters a layer, so that f(x_j doubled) - f(x) = < x_j, df/dx_j > with no error but rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tracestore.extract.sweep.replay import Record, ReplayError, Tape, is_activation, is_choice

Factors = Mapping[int, Tensor]
"""Layer -> factor [T] for each position of the hidden states that enter it; a layer L stands for the final state."""


@dataclass(slots=True)
class Reference:
    """An untouched model with one recorded forward pass on `input_ids` [1, T]."""

    model: Any
    input_ids: Tensor
    wide: bool
    cap: float | None
    layers: tuple[nn.Module, ...]
    records: dict[int, Record]
    logits: Tensor  # [T, V], before a final softcap
    seen: dict[tuple[int, int | None], Tensor] = field(default_factory=dict)

    def patterns(self, layer: int) -> list[int]:
        """Give the numbers of the records that are attention probabilities of a layer: softmax over all positions (and a sink)."""
        length = self.input_ids.shape[1]
        return [
            number
            for number, record in self.records.items()
            if record.layer == layer
            and "softmax" in record.name
            and record.result.dim() >= 3
            and record.result.shape[-2] == length
            and length <= record.result.shape[-1] <= length + 1
        ]

    def capped(self, logits: Tensor) -> Tensor:
        """Apply the final softcap, if the model has one."""
        return logits if not self.cap else self.cap * torch.tanh(logits / self.cap)

    def doubled(self, layer: int, pos: int | None = None) -> Tensor:
        """Give the logits [T, V] when the hidden state that enters `layer` at `pos` (None: at every position) is doubled."""
        found = self.seen.get((layer, pos))
        if found is None:
            factor = torch.ones(self.input_ids.shape[1], dtype=self.logits.dtype)
            factor[slice(None) if pos is None else pos] = 2.0
            found = self.seen[layer, pos] = self.replay({layer: factor})
        return found

    def replay(self, factors: Factors | None = None, changes: Mapping[int, Tensor] | None = None) -> Tensor:
        """Give the logits [T, V] of the frozen function on changed inputs."""
        tape = Tape(self.model, self.logits.shape[1], wide=self.wide, records=self.records)
        tape.changes = changes or {}
        return _uncapped(_forward(self.model, self.input_ids, tape, self.layers, factors or {}), self.cap)


def make_reference(model: Any, input_ids: Tensor, *, wide: bool) -> Reference:
    """Record one forward pass. Raises ReplayError when the decoder layers are not found."""
    layers = find_layers(model, input_ids)
    config = model.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
    tape = Tape(model, int(config.vocab_size), wide=wide)
    logits = _forward(model, input_ids, tape, layers, {})
    return Reference(model, input_ids, wide, cap, layers, tape.records, _uncapped(logits, cap))


def find_layers(model: Any, input_ids: Tensor) -> tuple[nn.Module, ...]:
    """Find the decoder layers by what runs."""
    length = input_ids.shape[1]
    order: list[int] = []
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) > 0]
    handles = []
    for candidate in lists:
        for member in candidate:

            def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                x = _hidden(args, kwargs)
                if x is not None and x.dim() == 3 and x.shape[1] == length:
                    order.append(id(module))

            handles.append(member.register_forward_pre_hook(note, with_kwargs=True))
    try:
        with torch.no_grad():
            model(input_ids=input_ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    ran = [tuple(m) for m in lists if [n for n in order if n in {id(x) for x in m}] == [id(x) for x in m]]
    if not ran:
        raise ReplayError("no list of layers runs once each, in order")
    return max(ran, key=len)


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    found = args[0] if args else kwargs.get("hidden_states")
    return found if isinstance(found, Tensor) else None


def _forward(model: Any, input_ids: Tensor, tape: Tape, layers: tuple[nn.Module, ...], factors: Factors) -> Tensor:
    with torch.no_grad(), eager(model), hooks(model, tape, layers, factors), tape:
        logits: Tensor = model(input_ids=input_ids, use_cache=False).logits[0]
    return logits


def _uncapped(logits: Tensor, cap: float | None) -> Tensor:
    return logits if not cap else cap * torch.atanh(logits / cap)


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Let a model use transformers' own eager attention for a while."""
    configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    kept = [(c, c._attn_implementation_internal) for c in configs.values() if hasattr(c, "_attn_implementation_internal")]
    for config, _ in kept:
        config._attn_implementation_internal = "eager"
    try:
        yield
    finally:
        for config, name in kept:
            config._attn_implementation_internal = name


@contextmanager
def hooks(model: Any, tape: Tape, layers: tuple[nn.Module, ...], factors: Factors) -> Iterator[None]:
    """Tell the tape which layer runs, scale what enters layers, and hand it activation modules as one operation each."""
    with ExitStack() as stack:
        for number, layer in enumerate(layers):
            stack.callback(layer.register_forward_pre_hook(_entering(tape, number, factors.get(number)), with_kwargs=True).remove)
            stack.callback(layer.register_forward_hook(_leaving(tape)).remove)
        for module in model.modules():
            if is_activation(module):
                stack.callback(module.register_forward_pre_hook(_hide(tape)).remove)
                stack.callback(module.register_forward_hook(_show(tape, constant=is_choice(module))).remove)
        yield


def _entering(tape: Tape, number: int, factor: Tensor | None) -> Callable[..., Any]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tape.layer = number
        if factor is None:
            return None
        tape.hidden += 1  # our own product is no operation of the model
        try:
            if args:
                return (args[0] * factor[:, None], *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": kwargs["hidden_states"] * factor[:, None]}
        finally:
            tape.hidden -= 1

    return hook


def _leaving(tape: Tape) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        tape.layer = -1

    return hook


def _hide(tape: Tape) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        tape.hidden += 1

    return hook


def _show(tape: Tape, *, constant: bool) -> Callable[..., Tensor]:
    def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        tape.hidden -= 1
        return output if tape.hidden else tape.module_result(args[0], output, constant=constant)

    return hook
