"""The shape of a family table: where a family keeps its modules and what kind its MLP is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MlpKind = Literal["gated", "plain"]


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture family. Names are dotted paths: from the model for the first three, from a layer for the others.

    `post_norms` names norms through which a written vector passes before it is added to the residual stream. `parallel` says that
    attention and MLP read the same State; a string names the configuration switch that says so.
    """

    name: str
    model_types: tuple[str, ...]
    mlp: MlpKind
    layers: str = "model.layers"
    final_norm: str = "model.norm"
    head: str = "lm_head"
    attention: str = "self_attn"
    feed_forward: str = "mlp"
    activation: str = "act_fn"
    attention_norm: str | None = "input_layernorm"
    feed_forward_norm: str | None = "post_attention_layernorm"
    post_norms: tuple[str, ...] = ()
    parallel: bool | str = False
