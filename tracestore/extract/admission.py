"""Admit a model on first use, or refuse it by name with the reason: an architecture is supported only if its numbers add up.

1. The frozen forward pass reproduces the model's own logits (I0).
2. No position sees a later one.
3. Closure, and conservation at every node, hold on short random prompts (I8, I9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tracestore.errors import ConservationError, ModelOutputError, UnsupportedModelError
from tracestore.extract.attribution import TargetSpec
from tracestore.model import Method, PruningOptions

if TYPE_CHECKING:
    from tracestore.extract.attribute import Attributor

LOGIT_TOLERANCE = 1e-4
HALF_LOGIT_TOLERANCE = 0.25
"""Half-precision logits are off by their own rounding: only a gross difference is a wrong forward pass."""


def admit_model(attributor: Attributor, method: Method) -> None:
    """Check `attributor`'s model on a short random prompt; raises UnsupportedModelError when an identity fails."""
    name = type(attributor.model).__name__ + ("" if method == "frozen" else f" (method {method})")
    ids = attributor.short_prompt(9)
    try:
        run = attributor.run(ids, method=method)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        advice = "; load it with dtype float32" if attributor.half else ""
        raise UnsupportedModelError(f"{name} does not run with its non-linearities held fixed ({error}){advice}") from error
    try:
        row = run.logits_row(run.length - 1)
    except ModelOutputError:
        return  # broken weights: reported when a prompt is traced
    gap = run.measure_replay_gap()
    attributor.replay_gap = max(attributor.replay_gap, gap)
    scale = max(float(row.abs().max()), float(row.std()), 1e-6)
    if not gap <= (HALF_LOGIT_TOLERANCE if attributor.half else LOGIT_TOLERANCE) * scale:
        raise UnsupportedModelError(f"{name}: the patched pass misses the model's own logits by {gap:.1e} (identity I0): not supported")
    changed = ids.clone()
    changed[0, -1] = (changed[0, -1] + 1) % row.shape[0]
    with torch.no_grad():
        other = attributor.run(changed, method=method).final_state(run.length - 2)
    here = run.final_state(run.length - 2)
    if not float((other - here).abs().max()) <= 1e-4 * float(here.abs().max().clamp_min(1e-6)):
        raise UnsupportedModelError(f"{name} lets a position see later tokens: only causal language models can be traced")
    for target in (TargetSpec(-1), TargetSpec(run.length // 2, runner_up=True)):
        try:
            run.attribute(target, PruningOptions())
        except ConservationError as error:
            raise UnsupportedModelError(f"{name} is not supported: its decomposition does not close: {error}") from error
