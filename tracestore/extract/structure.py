"""Take an unknown pre-norm decoder apart by watching it run. What is guessed here is admitted only if it closes.

1. The decoder layers: the list of modules, as long as the model has layers, in which attention is called.
2. One forward pass notes what every module in a layer reads and writes, and which module calls attention.
3. The norm whose output is the attention's input reads the pre State; the MLPs are the layer's other parts that hold weights; the norm
   whose output an MLP reads, reads the mid State, or, where that is the layer's own input, the block is parallel.
4. Two readings are offered: activations multiply another branch (gated), or stand alone (plain).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tracestore.errors import UnsupportedModelError
from tracestore.extract.attention import AttentionState
from tracestore.extract.families.private import writer_of
from tracestore.extract.freeze import quieten, use_attention
from tracestore.extract.layout import GENERIC, BlockLayout, FeedForward, ModelLayout
from tracestore.extract.norms import looks_like_norm


@dataclass(slots=True)
class _Seen:
    """What modules read and wrote in one forward pass, in order of calling; tensors are held so that no address is used twice."""

    read: dict[nn.Module, Tensor] = field(default_factory=dict)
    wrote: dict[nn.Module, Tensor] = field(default_factory=dict)
    calls: list[nn.Module] = field(default_factory=list)


def generic_layouts(model: Any) -> list[ModelLayout]:
    """Offer readings of `model`, an architecture without a table; raises UnsupportedModelError with the reason when there is none."""
    name = type(model).__name__
    head = model.get_output_embeddings()
    if head is None:
        raise UnsupportedModelError(f"{name} names no output embeddings")
    layers = _find_layers(model)
    seen, state = _watch(model, layers)
    missing = [i for i in range(len(layers)) if state.called.get(i, 0) != 1]
    if missing:
        kind = type(layers[missing[0]]).__name__
        raise UnsupportedModelError(
            f"layer {missing[0]} of {name} ({kind}) does not attend through transformers' attention interface exactly once (recurrent, "
            "linear or privately written attention): it cannot be traced"
        )
    inside = {m for layer in layers for m in layer.modules()}
    finals = [m for m in seen.calls if m not in inside and looks_like_norm(m) and not any(m.children())]
    if not finals:
        raise UnsupportedModelError(f"{name} has no norm after its last layer (true post-LN or privately written): it cannot be traced")
    width = seen.read[layers[0]].shape[-1]
    blocks = [_block(name, i, layer, state.modules[i], seen) for i, layer in enumerate(layers)]
    if len({b.mid_reader is None for b in blocks}) > 1:
        raise UnsupportedModelError(f"{name} mixes parallel and sequential blocks: it cannot be traced")
    return [
        ModelLayout(GENERIC, tuple(_with_kind(block, kind) for block in blocks), finals[-1], head, width) for kind in ("gated", "plain")
    ]


def _find_layers(model: Any) -> list[nn.Module]:
    config = model.config.get_text_config(decoder=True)
    named = (getattr(config, name, None) for name in ("decoder_layers", "num_decoder_layers", "num_hidden_layers"))
    count = next((n for n in named if isinstance(n, int)), None)
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) > 0]
    nested = {id(inner) for outer in lists for inner in outer.modules() if inner is not outer}
    outermost = [m for m in lists if id(m) not in nested]
    exact = [m for m in outermost if len(m) == count] or [m for m in lists if len(m) == count]
    if not exact:
        raise UnsupportedModelError(f"{type(model).__name__} has no list of {count} decoder layers")
    largest: nn.ModuleList = max(exact, key=lambda m: sum(p.numel() for p in m.parameters()))
    return list(largest)


def _watch(model: Any, layers: list[nn.Module]) -> tuple[_Seen, AttentionState]:
    seen = _Seen()
    state = AttentionState(layer_of={id(m): i for i, layer in enumerate(layers) for m in layer.modules()})
    config = model.config.get_text_config()
    ids = (torch.arange(6, device=next(model.parameters()).device) * 7 + 3) % int(config.vocab_size)
    with ExitStack() as stack:
        quieten(model, stack)
        for module in model.modules():
            stack.callback(module.register_forward_hook(_note(seen), with_kwargs=True).remove)
        use_attention(model, stack, state)
        with torch.no_grad():
            try:
                model.base_model(input_ids=ids[None], use_cache=False)
            except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError, NotImplementedError) as error:
                raise UnsupportedModelError(f"{type(model).__name__} does not run with attention held fixed: {error}") from error
    return seen, state


def _note(seen: _Seen) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = next((a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.is_floating_point()), None)
        out = output[0] if isinstance(output, tuple | list) and output else output
        if module in seen.read or given is None:
            return
        seen.read[module] = given
        seen.calls.append(module)
        if isinstance(out, Tensor):
            seen.wrote[module] = out

    return hook


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and a.data_ptr() == b.data_ptr() and a.numel() == b.numel()


def _block(name: str, number: int, layer: nn.Module, attention: nn.Module, seen: _Seen) -> BlockLayout:
    entered = seen.read[layer]
    norms = [m for m in layer.modules() if m in seen.wrote and looks_like_norm(m) and not any(m.children())]

    def norm_into(x: Tensor) -> nn.Module | None:
        return next((m for m in norms if _same(seen.wrote[m], x)), None)

    attention_norm = norm_into(seen.read[attention])
    attention_source = seen.read[attention] if attention_norm is None else seen.read[attention_norm]
    if not _same(attention_source, entered):
        raise UnsupportedModelError(f"attention in layer {number} of {name} does not read the residual stream through one norm")
    parts = _feed_forward(layer, attention, seen)
    if not parts:
        raise UnsupportedModelError(f"no MLP was found in layer {number} of {name}")
    read = seen.read[parts[0].reader]
    norm = norm_into(read)
    source = read if norm is None else seen.read[norm]
    if any(_same(seen.wrote.get(m), seen.wrote.get(layer)) for m in norms):
        raise UnsupportedModelError(f"layer {number} of {name} ends in a norm (true post-LN): it cannot be traced")
    parallel = _same(source, entered)
    activations = tuple(m for m in layer.modules() if _is_activation(m) and m in seen.wrote and m not in set(attention.modules()))
    return BlockLayout(
        layer=layer,
        attention=attention,
        feed_forward=parts,
        activations=activations,
        mlp="gated",
        attention_norm=attention_norm,
        feed_forward_norm=norm,
        mid_reader=None if parallel else (norm if norm is not None else parts[0].reader),
    )


def _feed_forward(layer: nn.Module, attention: nn.Module, seen: _Seen) -> tuple[FeedForward, ...]:
    """Find the parts of a layer that hold weights and are neither attention nor norms; loose linear layers together make one MLP."""
    parts: list[FeedForward] = []
    loose: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        for child in module.children():
            if child is attention or (looks_like_norm(child) and not any(child.children())) or child not in seen.read:
                if isinstance(child, nn.ModuleList | nn.ModuleDict):
                    visit(child)
                continue
            if attention in set(child.modules()):
                visit(child)
            elif isinstance(child, nn.Linear | Conv1D):
                loose.append(child)
            elif any(True for _ in child.parameters()):
                parts.append(_part(child))

    visit(layer)
    loose.sort(key=seen.calls.index)
    started = seen.calls.index(attention)
    loose = [m for m in loose if seen.calls.index(m) > started] if not parts else []
    if loose and _same(seen.read[loose[0]], seen.wrote.get(attention)):
        loose = loose[1:]  # the attention's own output projection, kept beside it
    if len(loose) >= 2:
        parts.append(FeedForward(loose[0], loose[-1], frozenset(loose)))
    return tuple(parts)


def _part(module: nn.Module) -> FeedForward:
    """Describe an MLP that is one module; some add the residual stream inside, after their last linear layer."""
    return FeedForward(module, writer_of(module), frozenset(module.modules()))


def _is_activation(module: nn.Module) -> bool:
    name = type(module).__name__.lower()
    home = type(module).__module__
    if home == "transformers.activations" and not any(module.children()):
        return True  # some hold parameters
    if any(module.children()) or any(True for _ in module.parameters()) or isinstance(module, nn.Dropout | nn.Identity):
        return False
    return home.startswith("torch.nn.modules.activation") or home.endswith("activations") or "gelu" in name or "activation" in name


def _with_kind(block: BlockLayout, kind: Any) -> BlockLayout:
    return replace(block, mlp=kind)
