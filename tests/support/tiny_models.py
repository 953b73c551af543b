"""Tiny random models of every family: four heads in two groups where the family groups them, random biases and gains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
import transformers

SIZES: Final = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED: Final = {**SIZES, "num_key_value_heads": 2}
GEMMA: Final = {**GROUPED, "head_dim": 8}
NO_PADDING: Final = {k: v for k, v in SIZES.items() if k != "pad_token_id"}


def _gpt2() -> Any:
    return transformers.GPT2Config(vocab_size=97, n_embd=32, n_layer=3, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2)


CONFIGS: Final[dict[str, Callable[[], Any]]] = {
    "gpt2": _gpt2,
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**NO_PADDING, use_parallel_residual=True),
    "gpt_neox-sequential": lambda: transformers.GPTNeoXConfig(**NO_PADDING, use_parallel_residual=False),
    "llama": lambda: transformers.LlamaConfig(**GROUPED, attention_bias=True, mlp_bias=True),
    "mistral": lambda: transformers.MistralConfig(**GROUPED, sliding_window=5),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED),
    "qwen3": lambda: transformers.Qwen3Config(**GROUPED, head_dim=8, attention_bias=True),
    "gemma": lambda: transformers.GemmaConfig(**GEMMA),
    "gemma2": lambda: transformers.Gemma2Config(**GEMMA, sliding_window=5, attn_logit_softcapping=5.0, final_logit_softcapping=8.0),
    "gemma3_text": lambda: transformers.Gemma3TextConfig(
        **GEMMA, sliding_window=5, layer_types=["sliding_attention", "full_attention", "sliding_attention"]
    ),
    "olmo2": lambda: transformers.Olmo2Config(**GROUPED, attention_bias=True),
    "phi": lambda: transformers.PhiConfig(**SIZES, qk_layernorm=True),
    "phi3": lambda: transformers.Phi3Config(**GROUPED, sliding_window=5),
    "smollm3": lambda: transformers.SmolLM3Config(**GROUPED, attention_bias=True, mlp_bias=True, no_rope_layers=[1, 0, 1]),
}
"""The thirteen families (GPT-NeoX in both block forms)."""


def tiny_model(name: str, dtype: torch.dtype = torch.float64, *, seed: int = 0) -> Any:
    """Build a tiny random model of a family in evaluation mode; biases, gains and weights all random."""
    return randomised(CONFIGS[name](), dtype, seed=seed)


def randomised(config: Any, dtype: torch.dtype = torch.float64, *, seed: int = 0) -> Any:
    """Build a model from a configuration with random biases, gains and weights."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += (0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)).to(dtype)
    return model


def tokens(length: int, *, seed: int = 0) -> torch.Tensor:
    """Give random token ids [T], none of them special."""
    return torch.randint(3, 97, (length,), generator=torch.Generator().manual_seed(seed))
