"""Phi (parallel, one shared LayerNorm, biases everywhere) and Phi-3 (Llama's block with fused projections)."""

from tracestore.extract.families.base import Family

PHI = Family(
    name="phi",
    model_types=("phi",),
    mlp="plain",
    final_norm="model.final_layernorm",
    activation="activation_fn",
    feed_forward_norm="input_layernorm",
    parallel=True,
)

PHI3 = Family(name="phi3", model_types=("phi3",), mlp="gated", activation="activation_fn")

FAMILIES = (PHI, PHI3)
