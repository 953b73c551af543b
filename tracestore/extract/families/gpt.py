"""GPT-2 and GPT-NeoX: LayerNorm with biases, fused projections, plain MLP."""

from tracestore.extract.families.base import Family

GPT2 = Family(
    name="gpt2",
    model_types=("gpt2",),
    mlp="plain",
    layers="transformer.h",
    final_norm="transformer.ln_f",
    attention="attn",
    activation="act",
    attention_norm="ln_1",
    feed_forward_norm="ln_2",
)

GPT_NEOX = Family(
    name="gpt_neox",
    model_types=("gpt_neox",),
    mlp="plain",
    layers="gpt_neox.layers",
    final_norm="gpt_neox.final_layer_norm",
    attention="attention",
    activation="act",
    parallel="use_parallel_residual",
)

FAMILIES = (GPT2, GPT_NEOX)
