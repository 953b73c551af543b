"""How a model is made for the pointer chase, and of which family: the same task and sizes, other parts between the tokens (`PARTS`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tracestore.errors import BadInputError
from tracestore.evaluate.suites.pointer_chase import PointerChase


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the model is made: sizes, optimiser, seed, the updates after which it is saved (the last always is), and its family."""

    layers: int = 3
    width: int = 128
    mlp: int = 256
    heads: int = 4
    rate: float = 2e-3
    warm_up: int = 100
    weight_decay: float = 0.01
    batch: int = 64
    clip: float = 1.0
    updates: int = 800
    seed: int = 0
    saves: tuple[int, ...] = (0, 25, 50, 75, 100, 150, 200, 400)
    family: str = "llama"


def configuration(task: PointerChase, recipe: Recipe) -> Any:
    """Give transformers' configuration of the recipe's model. Raises BadInputError for a family that has no recipe."""
    if recipe.family not in _CONFIGURATIONS:
        raise BadInputError(f"there is no recipe for family {recipe.family!r}: choose {', '.join(_CONFIGURATIONS)}")
    return _CONFIGURATIONS[recipe.family](task, recipe)


def _common(task: PointerChase) -> dict[str, Any]:
    return {"vocab_size": len(task.vocabulary), "bos_token_id": 0, "eos_token_id": None, "pad_token_id": None}


def _positions(task: PointerChase) -> int:
    return max(64, task.length)


def _sizes(task: PointerChase, recipe: Recipe) -> dict[str, Any]:
    """Give the sizes under the names that most families have for them."""
    return {
        **_common(task),
        "hidden_size": recipe.width,
        "intermediate_size": recipe.mlp,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "max_position_embeddings": _positions(task),
    }


def _llama(task: PointerChase, recipe: Recipe) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**_sizes(task, recipe), num_key_value_heads=recipe.heads)


def _spread(recipe: Recipe) -> dict[str, Any]:
    """Start weights at 1 / sqrt(width): the families' own 0.02 is for widths of thousands, and what is tied or added to it learns late."""
    return {"initializer_range": recipe.width**-0.5}


def _gpt2(task: PointerChase, recipe: Recipe) -> Any:
    from transformers import GPT2Config

    return GPT2Config(
        **_common(task),
        **_spread(recipe),
        n_positions=_positions(task),
        n_embd=recipe.width,
        n_inner=recipe.mlp,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )


def _gpt_neox(task: PointerChase, recipe: Recipe) -> Any:
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(**_sizes(task, recipe), **_spread(recipe), use_parallel_residual=True)


def _gemma2(task: PointerChase, recipe: Recipe) -> Any:
    from transformers import Gemma2Config

    width = recipe.width // recipe.heads
    return Gemma2Config(
        **_sizes(task, recipe),
        **_spread(recipe),
        num_key_value_heads=recipe.heads,
        head_dim=width,
        query_pre_attn_scalar=width,
        sliding_window=_positions(task),
    )


def _qwen3(task: PointerChase, recipe: Recipe) -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(
        **_sizes(task, recipe), **_spread(recipe), num_key_value_heads=max(1, recipe.heads // 2), head_dim=recipe.width // recipe.heads
    )


def _bloom(task: PointerChase, recipe: Recipe) -> Any:
    from transformers import BloomConfig

    return BloomConfig(**_common(task), **_spread(recipe), hidden_size=recipe.width, n_layer=recipe.layers, n_head=recipe.heads)


_CONFIGURATIONS: Final[Mapping[str, Callable[[PointerChase, Recipe], Any]]] = {
    "llama": _llama,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "gemma2": _gemma2,
    "qwen3": _qwen3,
    "bloom": _bloom,
}

PARTS: Final[Mapping[str, str]] = {
    "llama": "RMSNorm, rotary positions, gated MLP",
    "gpt2": "LayerNorm, learned positions, biases, plain MLP, tied embeddings",
    "gpt_neox": "LayerNorm, a quarter of each head rotated, biases, attention and MLP side by side",
    "gemma2": "RMSNorm before and after each block, caps on scores and logits, scaled and tied embeddings",
    "qwen3": "RMSNorm on queries and keys, two query heads on each key-value head, gated MLP",
    "bloom": "LayerNorm, ALiBi, biases, plain MLP, tied embeddings",
}
"""What each family puts between the tokens."""

RECIPES: Final[Mapping[str, Recipe]] = {
    "llama": Recipe(),
    "gpt2": Recipe(family="gpt2", updates=400, saves=()),  # what positions write into its tokens makes it the slowest
    **{family: Recipe(family=family, updates=200, saves=()) for family in ("gpt_neox", "gemma2", "qwen3", "bloom")},
}
"""A recipe for each family, by which it learns the task."""
