"""A small pointer chase, trained in seconds: six keys, three steps, half the width."""

from __future__ import annotations

from typing import Final

from tracestore.evaluate.suites.pointer_chase import PointerChase
from tracestore.evaluate.suites.pointer_chase_model import TrainedChase, pointer_chase_model
from tracestore.evaluate.suites.pointer_chase_recipe import Recipe

SMALL_TASK: Final = PointerChase(keys=6, steps=3)
SMALL_RECIPE: Final = Recipe(width=64, mlp=128, updates=150, saves=(0, 30, 60))


def small_chase() -> TrainedChase:
    """Give the trained model with four checkpoints; from the cache after the first time."""
    return pointer_chase_model(SMALL_TASK, SMALL_RECIPE)
