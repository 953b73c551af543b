"""Where a model keeps the parts that the decomposition needs: its blocks, norms, MLPs, final norm and head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from tracestore.errors import UnsupportedModelError
from tracestore.extract.families import Family, MlpKind, find_family


@dataclass(frozen=True, slots=True)
class FeedForward:
    """One MLP: the module whose input it reads, the one whose output it writes, and every module inside."""

    reader: nn.Module
    writer: nn.Module
    modules: frozenset[nn.Module]


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """One decoder layer. `mid_reader` is the module whose input is the mid State (None in a parallel block)."""

    layer: nn.Module
    attention: nn.Module
    feed_forward: tuple[FeedForward, ...]
    activations: tuple[nn.Module, ...]
    mlp: MlpKind
    attention_norm: nn.Module | None
    feed_forward_norm: nn.Module | None
    mid_reader: nn.Module | None


GENERIC = "generic"
"""The family of an architecture that has no table."""


@dataclass(frozen=True, slots=True)
class ModelLayout:
    """A model taken apart. `family` is the table's name, or `generic`."""

    family: str
    blocks: tuple[BlockLayout, ...]
    final_norm: nn.Module
    head: nn.Module
    width: int

    @property
    def parallel(self) -> bool:
        """Do attention and MLP of the blocks read the same State?"""
        return self.blocks[0].mid_reader is None


def find_layouts(model: Any) -> list[ModelLayout]:
    """Take `model` (a transformers causal LM) apart by its family's table, or by structure when it has none.

    By structure there may be several readings: the one that closes is the right one. Raises UnsupportedModelError, naming the reason,
    when there is none.
    """
    family = find_family(str(model.config.model_type))
    if family is None:
        from tracestore.extract.structure import generic_layouts

        return generic_layouts(model)
    return [family_layout(model, family)]


def whole(module: nn.Module) -> FeedForward:
    """Describe an MLP that is one module."""
    return FeedForward(module, module, frozenset(module.modules()))


def family_layout(model: Any, family: Family) -> ModelLayout:
    """Follow a family's table."""
    parallel = bool(getattr(model.config, family.parallel)) if isinstance(family.parallel, str) else family.parallel
    try:
        layers = model.get_submodule(family.layers)
        blocks = tuple(_block(layer, family, parallel=parallel) for layer in layers)
        final_norm, head = model.get_submodule(family.final_norm), model.get_submodule(family.head)
    except AttributeError as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} does not look like its family {family.name!r}: {error}; extend the family's table"
        ) from error
    return ModelLayout(family.name, blocks, final_norm, head, int(model.config.hidden_size))


def _block(layer: nn.Module, family: Family, *, parallel: bool) -> BlockLayout:
    def part(path: str | None) -> nn.Module | None:
        return None if path is None else layer.get_submodule(path)

    feed_forward, norm = layer.get_submodule(family.feed_forward), part(family.feed_forward_norm)
    return BlockLayout(
        layer=layer,
        attention=layer.get_submodule(family.attention),
        feed_forward=(whole(feed_forward),),
        activations=(feed_forward.get_submodule(family.activation),),
        mlp=family.mlp,
        attention_norm=part(family.attention_norm),
        feed_forward_norm=norm,
        mid_reader=None if parallel else (norm if norm is not None else feed_forward),
    )
