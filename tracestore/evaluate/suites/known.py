"""Cases whose drivers are known for certain: compiled circuits and the trained pointer chase.

No model is compiled or trained before a case is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import torch
from torch import Tensor

from tracestore.evaluate.case import Case, Pending
from tracestore.evaluate.suites.circuits import Circuit, CircuitItem
from tracestore.evaluate.suites.pointer_chase import PointerChase
from tracestore.evaluate.suites.pointer_chase_model import pointer_chase_model
from tracestore.evaluate.suites.pointer_chase_recipe import RECIPES, Recipe
from tracestore.extract.attribute import Attributor


def circuit_cases(name: str, count: int, *, seed: int = 0) -> Iterator[Pending]:
    """Ask a compiled circuit; every deciding token is a step."""
    circuit = Circuit(name)

    @cache
    def attributor() -> Attributor:
        return Attributor(circuit.model())

    def case(key: str, item: CircuitItem) -> Case:
        return Case(
            id=key,
            task=name,
            attributor=attributor(),
            token_ids=tuple(circuit.token_ids(item)),
            token_id=circuit.vocabulary.index(item.answer),
            evidence=frozenset().union(*item.steps),
            steps=item.steps,
            correct=True,  # tests/unit/evaluate/test_circuits.py: the circuits answer every question right
        )

    for number, item in enumerate(circuit.items(count, seed=seed), start=1):
        key = f"{name}-{seed}-{number}"
        yield Pending(key, partial(case, key, item))


def chase_cases(count: int, *, seed: int = 0) -> Iterator[Pending]:
    """Ask the trained pointer chase: a case for each of the steps of `count` sequences, with its one true driver."""
    yield from _chase_cases(PointerChase(), Recipe(), "pointer_chase", f"chase-{seed}", count, seed)


def chase_family_cases(count: int, *, task: PointerChase | None = None, seed: int = 0) -> Iterator[Pending]:
    """Ask the pointer chase of every family, each about the same `count` sequences; the task of a case is its family."""
    for family, recipe in RECIPES.items():
        yield from _chase_cases(task or PointerChase(), recipe, family, f"chase-{family}-{seed}", count, seed)


def _chase_cases(task: PointerChase, recipe: Recipe, name: str, prefix: str, count: int, seed: int) -> Iterator[Pending]:
    @cache
    def attributor() -> Attributor:
        from transformers import AutoModelForCausalLM

        folder = pointer_chase_model(task, recipe).final.folder
        return Attributor(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())

    def case(key: str, sequence: Tensor, pos: int, driver: int) -> Case:
        answer, asked = int(sequence[pos + 1]), attributor()
        with torch.no_grad():
            said = int(asked.model(sequence[None, : pos + 1], use_cache=False).logits[0, -1].argmax())
        return Case(
            id=key,
            task=name,
            attributor=asked,
            token_ids=tuple(sequence[: pos + 1].tolist()),
            token_id=answer,
            evidence=frozenset({driver}),
            steps=(frozenset({driver}),),
            correct=said == answer,
        )

    sequences = task.sample(count, torch.Generator().manual_seed(seed))
    for number, (sequence, drivers) in enumerate(zip(sequences, task.drivers(sequences).tolist(), strict=True), start=1):
        for step, driver in enumerate(drivers, start=1):
            key = f"{prefix}-{number}-step{step}"
            yield Pending(key, partial(case, key, sequence, task.n_prompt - 2 + step, driver))
