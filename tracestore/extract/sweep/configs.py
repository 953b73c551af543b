"""Make a tiny configuration of every causal-LM class of transformers, by its fields' names.

1. Introspect the configuration class: set every field that stands in `TINY`, leave the others at their defaults.
2. Do the same for its sub-configurations (text, vision, audio, attention, ...).
3. Where a name means something else in one architecture, `EXCEPTIONS` says so.

Biases, caps, multipliers and windows are switched on wherever a field allows it: what is off cannot be got wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY: Final = 100
LAYERS: Final = 4

TINY: Final[Mapping[str, Any]] = {
    # sizes
    **dict.fromkeys(("vocab_size", "decoder_vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "embedding_size", "input_embedding_size", "output_embedding_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("encoder_layers", "num_encoder_layers"), 1),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "attention_heads"), 4),
    **dict.fromkeys(
        ("encoder_attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads", "swa_num_attention_heads"), 4
    ),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(("head_dim", "swa_head_dim", "kv_channels", "dim_head", "linear_head_dim", "global_head_dim"), 8),
    **dict.fromkeys(("intermediate_size", "decoder_ffn_dim", "encoder_ffn_dim", "ffn_dim", "n_inner", "dff", "dim_ff", "d_inner"), 48),
    **dict.fromkeys(("ffn_hidden_size", "intermediate_size_mlp", "dense_intermediate_size", "prefix_dense_intermediate_size"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length"), 64),
    **dict.fromkeys(("max_target_positions", "original_max_position_embeddings"), 64),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "v_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim"), 4),
    **dict.fromkeys(("hidden_size_per_layer_input", "laurel_rank", "o_lora_rank", "hc_lowrank", "adapter_rank"), 8),
    # windows
    **dict.fromkeys(("sliding_window", "sliding_window_size", "local_attention", "window_size", "attention_chunk_size"), 4),
    **dict.fromkeys(("attention_window_size", "keep_window_size"), 4),
    # mixtures of experts
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", "zero_expert_num"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("shared_intermediate_size", "moe_shared_expert_intermediate_size", "shared_experts_intermediate_size"), 16),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "topk_group"), 1),
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers"), 1),
    "n_group": 2,
    "decoder_sparse_step": 2,
    # recurrent and linear attention
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "state_size", "mamba_d_head", "mamba_head_dim", "linear_key_head_dim"), 8),
    **dict.fromkeys(("linear_value_head_dim", "chunk_size", "mamba_chunk_size"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "n_mamba_heads", "mamba_n_groups", "n_groups", "mamba_ngroups"), 2),
    **dict.fromkeys(("attention_hidden_size", "lru_width"), 32),
    "linear_num_heads": 4,
    # sparse attention indexers
    **dict.fromkeys(("index_n_heads", "indexer_n_heads"), 2),
    **dict.fromkeys(("index_head_dim", "indexer_head_dim"), 8),
    **dict.fromkeys(("index_topk", "indexer_budget"), 4),
    # switches: everything that can carry a bias does
    **dict.fromkeys(("attention_bias", "mlp_bias", "use_bias", "lm_head_bias", "qkv_bias", "use_qkv_bias", "bias", "norm_bias"), True),
    **dict.fromkeys(("add_bias_linear", "enable_bias", "decoder_bias", "attention_out_bias"), True),
    **dict.fromkeys(("qk_layernorm", "use_qk_norm"), True),
    **dict.fromkeys(("is_decoder", "use_sliding_window"), True),
    **dict.fromkeys(("add_cross_attention", "use_cache"), False),
    # scales that are 1 by default
    "residual_multiplier": 0.7,
    "embedding_multiplier": 1.3,
    "logits_scaling": 1.7,
    "attention_multiplier": 0.4,
    "lm_head_multiplier": 0.8,
    # numbers of special tokens
    **dict.fromkeys(("pad_token_id", "pad_index", "mask_token_id"), 0),
    **dict.fromkeys(("bos_token_id", "decoder_start_token_id"), 1),
    "eos_token_id": 2,
    "initializer_range": 0.2,
    # vision and audio parts, which a text run never calls
    **dict.fromkeys(("image_size", "patch_size"), 8),
    **dict.fromkeys(("image_token_id", "video_token_id", "audio_token_id", "image_token_index", "boi_token_id", "eoi_token_id"), 98),
    **dict.fromkeys(("boi_token_index", "eoi_token_index", "eoa_token_index", "boa_token_id", "eoa_token_id"), 98),
}

_LATENT: Final = {"num_key_value_heads": 4, "attention_bias": False}  # keys, values from one latent vector; no checkpoint has biases
_FULL_AND_SLIDING: Final = ["sliding_attention", "full_attention"] * 2
_SHARED_KEYS: Final = {
    "text_config.hidden_size_per_layer_input": 0,
    "text_config.vocab_size_per_layer_input": 0,
    "backbone_hidden_size": 32,
}
_TINY_SWA: Final = {
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 8,
    "swa_kv_lora_rank": 8,
    "swa_head_dim": 12,
    "swa_qk_nope_head_dim": 8,
    "swa_v_head_dim": 8,
    "head_dim": 12,
}
_INDEXER: Final = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 4,
    "indexer_compress_ratio": 2,
}
EXCEPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "minicpm3"), _LATENT),
    **dict.fromkeys(("youtu", "kimi_linear", "longcat_flash"), _LATENT),
    "blt": {"encoder_hash_byte_group_vocab": 200, "encoder_config.hidden_size_global": 32, "decoder_config.hidden_size_global": 32},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}},
    },
    "dbrx": {"attn_config.rope_theta": 1e4, "attn_config.kv_n_heads": 2, "attn_config.clip_qkv": 8.0, "ffn_config.moe_top_k": 2},
    "dots3_note": {"vision_config.mlp_layer_types": ["dense"] * LAYERS},
    "dots3_note_text": {**_LATENT, **_TINY_SWA},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3": {"vision_config.model_type": "siglip_vision_model"},
    "gemma3n": {"vision_config.architecture": "mobilenetv3_small_050"},
    "gemma3n_text": {"num_hidden_layers": 10, "num_kv_shared_layers": 3},
    "gemma4_text": {"layer_types": _FULL_AND_SLIDING},
    "gemma4_unified_text": {"layer_types": _FULL_AND_SLIDING},
    "gemma4_assistant": {**_SHARED_KEYS, "text_config.model_type": "gemma4_text"},
    "gemma4_unified_assistant": {**_SHARED_KEYS, "text_config.model_type": "gemma4_unified_text"},
    "got_ocr2": {"text_config.model_type": "qwen2"},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {**_LATENT, "num_layers": 2, "head_dim": 4},
    "mamba2": {"num_heads": 8},
    "moss_transcribe_diarize": {"text_config.model_type": "qwen3"},
    "musicgen": {"text_encoder.model_type": "t5", "audio_encoder.model_type": "encodec"},
    "musicgen_melody": {"text_encoder.model_type": "t5", "audio_encoder.model_type": "encodec"},
    "fuyu": {"text_config.model_type": "persimmon"},
    "qwen4_exp_text": _INDEXER,
    "reformer": {"axial_pos_shape": (8, 8), "axial_pos_embds_dim": (16, 16), "attn_layers": ("local", "lsh", "local", "lsh")},
    "t5": {"d_kv": 8, "d_ff": 48},
    "zamba": {"layers_block_type": ["linear_attention", "linear_attention", "hybrid", "hybrid"], "attention_hidden_size": 64},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"]},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
}
"""By model_type; a dotted name reaches into a sub-configuration."""


def tiny_config(model_type: str) -> Any:
    """Give a tiny configuration of an architecture; whatever its class raises on bad values passes through."""
    return _tiny(CONFIG_MAPPING[model_type], dict(EXCEPTIONS.get(model_type, {})))


def _tiny(config_class: Any, exceptions: dict[str, Any]) -> Any:
    names = {field.name for field in dataclasses.fields(config_class)}
    given = {name: value for name, value in TINY.items() if name in names}
    for name, sub_class in getattr(config_class, "sub_configs", {}).items():
        prefix = name + "."
        below = {key.removeprefix(prefix): exceptions.pop(key) for key in list(exceptions) if key.startswith(prefix)}
        model_type = below.pop("model_type", None)
        if model_type is not None:
            given[name] = _tiny(CONFIG_MAPPING[model_type], {**EXCEPTIONS.get(model_type, {}), **below})
        elif sub_class is not AutoConfig:
            given[name] = _tiny(sub_class, {**EXCEPTIONS.get(getattr(sub_class, "model_type", ""), {}), **below})
    given.update(exceptions)
    return config_class(**given)
