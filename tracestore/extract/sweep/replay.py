"""A second, independent frozen function: record what an untouched model computed, and play the non-linear results back.

Nothing here knows an architecture or uses the engine. The model's own code runs, with its own eager attention; a dispatch mode stands
below it and sees every tensor operation:

1. Record: number the operations; note the result of every softmax, root, sigmoid, comparison and top-k choice, the scale of every layer
   norm, and input and output of every activation. An activation whose result is multiplied by another varying branch is a gate.
2. Replay: the same operations in the same order (else it raises), on changed hidden states. Softmax, roots, sigmoids, choices and
   gates give back the noted result; layer norms use the noted scale; other activations multiply their input by the noted output / input.
3. What remains is affine in the hidden states that enter a layer: differences of replays are exact derivatives, without a step error.

In `wide` mode a cast from float64 to a smaller format is left out: transformers' code computes norms and rotary embeddings in float32
even in a float64 model, which would hide errors below 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules import activation as torch_activation
from torch.utils._python_dispatch import TorchDispatchMode


def _names(words: str) -> frozenset[str]:
    return frozenset(f"aten.{word}" for word in words.split())


_CONSTANT: Final = _names(
    """_softmax _log_softmax _safe_softmax rsqrt rsqrt_ sqrt sqrt_ reciprocal sigmoid sigmoid_ softplus topk sort argmax argsort std var
    linalg_vector_norm norm exp log_sigmoid_forward max gt ge lt le eq ne"""
)
_ACTIVATION: Final = _names("silu silu_ gelu relu relu_ tanh hardswish mish leaky_relu elu hardtanh")
_CLAMP: Final = _names("clamp clamp_ clamp_min clamp_max")
_COPY: Final = _names("_to_copy clone")
_PRODUCT: Final = _names("mul mul_")
_SOFT: Final = _names("sigmoid sigmoid_ softplus")

Rule = Literal["constant", "ratio", "gate", "clamp", "scale", "product"]


class ReplayError(Exception):
    """The replay cannot follow the recording, or the model does not suit it."""


@dataclass(slots=True)
class Record:
    """One noted operation. `layer` is the decoder layer that ran, -1 outside of one."""

    name: str
    rule: Rule
    result: Any
    given: Tensor | None
    layer: int


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Note operations (`records` None) or play them back; use as a context around a forward pass, with `activation_hooks`."""

    def __init__(self, model: nn.Module, vocabulary: int, *, wide: bool, records: dict[int, Record] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.vocabulary, self.wide = vocabulary, wide
        self.replaying = records is not None
        self.records: dict[int, Record] = {} if records is None else records
        self.changes: Mapping[int, Tensor] = {}
        self.layer, self.hidden, self.count = -1, 0, 0
        self._constants = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        self._made: dict[int, int] = {}  # storage of an activation's or a sigmoid product's result -> its record
        self._soft: set[int] = set()  # storages of sigmoids
        self._alive: list[Any] = []  # results stay alive, so that no storage is used twice

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the guard against it would double the cost of every operation

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation by its rule."""
        kwargs = dict(kwargs or {})
        name = str(func.overloadpacket)
        if self.wide and name == "aten._to_copy":
            _keep_wide(args, kwargs)

        def run() -> Any:
            return func(*args, **kwargs)

        if self.hidden:
            return run()
        self.count += 1
        rule = self._rule(name, args)
        if rule is not None:
            return self._noted(name, rule, args, run)
        out = run()
        if name in _COPY and not self.replaying:
            self._follow(args[0], out)
        return out

    def _rule(self, name: str, args: tuple[Any, ...]) -> Rule | None:
        if self.replaying:
            record = self.records.get(self.count)
            return None if record is None else record.rule
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is None or not first.is_floating_point() or first.dim() == 0:
            return None
        makes_logits = self.layer < 0 and first.shape[-1] == self.vocabulary
        if name in _CONSTANT or (name == "aten.pow" and isinstance(args[1], float) and args[1] < 1):
            return "constant"
        if name in _ACTIVATION and not makes_logits:
            return "ratio"
        if name in _CLAMP and first.dim() > 1:
            return "clamp"
        if name == "aten.native_layer_norm":
            return "scale"
        return "product" if name in _PRODUCT and self._meets(args) else None

    def _meets(self, args: tuple[Any, ...]) -> bool:
        """See a product: it turns an activation into a gate of the other, varying factor. Tell whether a sigmoid is a factor."""
        left, right = args[:2]
        if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
            return False
        keys = left.untyped_storage().data_ptr(), right.untyped_storage().data_ptr()
        varying = [t.numel() > 1 and key not in self._constants for t, key in zip((left, right), keys, strict=True)]
        for key, other in ((keys[0], varying[1]), (keys[1], varying[0])):
            number = self._made.get(key)
            if other and number is not None and self.records[number].rule in ("ratio", "product") and keys[0] != keys[1]:
                self.records[number].rule = "gate"
        return all(varying) and any(key in self._soft for key in keys)

    def _follow(self, source: Tensor, copy: Tensor) -> None:
        key, new = source.untyped_storage().data_ptr(), copy.untyped_storage().data_ptr()
        if key in self._made:
            self._made[new] = self._made[key]
        if key in self._soft:
            self._soft.add(new)
        self._alive.append(copy)

    def module_result(self, given: Tensor, result: Tensor, *, constant: bool) -> Tensor:
        """Note or play back a whole activation module."""
        self.count += 1
        self.hidden += 1  # what happens here is no operation of the model
        try:
            out: Tensor = self._noted("module", "constant" if constant else "ratio", (given,), lambda: result)
        finally:
            self.hidden -= 1
        return out

    def _noted(self, name: str, rule: Rule, args: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        if self.replaying:
            return self._played(name, args, run)
        given = args[0].clone() if isinstance(args[0], Tensor) else None
        result = run()
        kept = result.clone() if isinstance(result, Tensor) else tuple(part.clone() for part in result)
        self.records[self.count] = Record(name, rule, kept, given, self.layer)
        if isinstance(result, Tensor) and rule in ("ratio", "product", "constant"):
            key = result.untyped_storage().data_ptr()
            self._made[key] = self.count
            if name in _SOFT:
                self._soft.add(key)
            self._alive.append(result)
        return result

    def _played(self, name: str, args: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        record = self.records.get(self.count)
        if record is None or record.name != name or record.given is None or record.given.shape != args[0].shape:
            raise ReplayError(f"operation {self.count} ({name}) of the replay is not the one that was recorded")
        if self.count in self.changes:
            return self.changes[self.count].clone()
        rule, noted = record.rule, record.result
        if rule in ("constant", "gate"):
            return noted.clone() if isinstance(noted, Tensor) else tuple(part.clone() for part in noted)
        if rule == "ratio":
            zero = record.given == 0
            return args[0] * torch.where(zero, torch.zeros_like(noted), noted / torch.where(zero, torch.ones_like(noted), record.given))
        if rule == "clamp":
            return torch.where(noted == record.given, args[0], noted)
        if rule == "scale":
            return _layer_norm(args, noted)
        return run()


def _layer_norm(args: tuple[Any, ...], noted: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    x, shape, weight, bias = args[:4]
    axes = tuple(range(-len(shape), 0))
    out = (x - x.mean(axes, keepdim=True)) * noted[2]
    out = out if weight is None else out * weight
    return out if bias is None else out + bias, noted[1], noted[2]


def _keep_wide(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    narrow = (torch.float32, torch.float16, torch.bfloat16)
    if kwargs.get("dtype") in narrow and isinstance(args[0], Tensor) and args[0].dtype == torch.float64:
        kwargs["dtype"] = torch.float64


class Wide(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Leave out every cast from float64 to a smaller format."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the guard against it would double the cost of every operation

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, in float64 where it was asked to narrow."""
        kwargs = dict(kwargs or {})
        if str(func.overloadpacket) == "aten._to_copy":
            _keep_wide(args, kwargs)
        return func(*args, **kwargs)


def is_activation(module: nn.Module) -> bool:
    """Tell whether a module is one of torch's or transformers' activation functions."""
    kind = type(module)
    ours = kind.__module__ in ("transformers.activations", torch_activation.__name__) or "gelu" in kind.__name__.lower()
    return ours and kind.__name__ != "MultiheadAttention" and not any(module.children())


def is_choice(module: nn.Module) -> bool:
    """Tell whether an activation module only makes weights: softmax or sigmoid."""
    return "softmax" in type(module).__name__.lower() or "sigmoid" in type(module).__name__.lower()
