"""The part of every layer's queries and keys that biases make, for `secant`: found while the model runs.

An address edge carries what the State at a position made of a query or a key; what the bias of the input norm and those of the projections
made belongs to the head's own bias. Behind rotary positions that part differs from position to position, and behind a norm of queries and
keys it is scaled as the whole was. So right after a layer has attended, its attention runs once more on the bias of the input norm alone,
with the norms inside held at the scales that they had, up to where queries and keys reach the attention function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tracestore.extract.attention import AddressBias, AttentionState, InputsRecordedError
from tracestore.extract.capture import hidden_argument
from tracestore.extract.layout import ModelLayout
from tracestore.extract.norms import FrozenNorm


@contextmanager
def finding_address_bias(
    layout: ModelLayout, norms: Mapping[nn.Module, FrozenNorm], state: AttentionState, without: set[int]
) -> Iterator[None]:
    """Fill `state.address_bias` during a forward pass; layers found to have none join `without` and are not asked again."""
    with ExitStack() as stack:
        for layer, block in enumerate(layout.blocks):
            form = norms.get(block.attention_norm) if block.attention_norm is not None else None
            shift = None if form is None else form.bias
            biased = any(getattr(module, "bias", None) is not None for module in block.attention.modules())
            if layer not in without and (shift is not None or biased):
                hook = _after(layer, shift, state, without)
                stack.callback(block.attention.register_forward_hook(hook, with_kwargs=True).remove)
        yield


def _after(layer: int, shift: Tensor | None, state: AttentionState, without: set[int]) -> Callable[..., None]:
    def hook(attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
        x, _ = hidden_argument(attention, args, kwargs)
        alone = torch.zeros_like(x) if shift is None else shift.to(x.dtype).expand_as(x).contiguous()
        changed_args = tuple(alone if given is x else given for given in args)  # some are handed the same state three times
        changed_kwargs = {name: alone if given is x else given for name, given in kwargs.items()}
        state.record, state.norm_scales.replay = [], True
        try:
            with torch.no_grad():
                attention(*changed_args, **changed_kwargs)
        except InputsRecordedError:
            query, key, _value = state.record[0]
            if bool(query.any()) or bool(key.any()):
                state.address_bias[layer] = AddressBias(query.detach().clone(), key.detach().clone())
            else:
                without.add(layer)
        finally:
            state.record, state.norm_scales.replay = None, False

    return hook
