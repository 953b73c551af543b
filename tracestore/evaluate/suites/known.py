"""Cases whose drivers are known for certain: compiled circuits and the trained pointer chase."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from tracestore.evaluate.case import Case
from tracestore.evaluate.suites.circuits import Circuit
from tracestore.evaluate.suites.pointer_chase_model import TrainedChase, pointer_chase_model
from tracestore.evaluate.suites.pointer_chase_recipe import RECIPES
from tracestore.extract.attribute import Attributor


def circuit_cases(name: str, count: int, *, seed: int = 0) -> Iterator[Case]:
    """Ask a compiled circuit; every deciding token is a step."""
    circuit = Circuit(name)
    attributor = Attributor(circuit.model())
    for number, item in enumerate(circuit.items(count, seed=seed), start=1):
        yield Case(
            id=f"{name}-{seed}-{number}",
            task=name,
            attributor=attributor,
            token_ids=tuple(circuit.token_ids(item)),
            token_id=circuit.vocabulary.index(item.answer),
            evidence=frozenset().union(*item.steps),
            steps=item.steps,
            correct=True,  # tests/unit/evaluate/test_circuits.py: the circuits answer every question right
        )


def chase_cases(count: int, *, seed: int = 0, on_update: Callable[[int, float], None] | None = None) -> Iterator[Case]:
    """Ask the trained pointer chase: a case for each of the steps of `count` sequences, with its one true driver."""
    yield from _chase_cases(pointer_chase_model(on_update=on_update), "pointer_chase", f"chase-{seed}", count, seed)


def chase_family_cases(count: int, *, seed: int = 0) -> Iterator[Case]:
    """Ask the pointer chase of every family, each about the same `count` sequences; the task of a case is its family."""
    if not count:
        return  # nothing is trained for nothing
    for family, recipe in RECIPES.items():
        yield from _chase_cases(pointer_chase_model(recipe=recipe), family, f"chase-{family}-{seed}", count, seed)


def _chase_cases(trained: TrainedChase, name: str, prefix: str, count: int, seed: int) -> Iterator[Case]:
    from transformers import AutoModelForCausalLM

    task = trained.task
    model = AutoModelForCausalLM.from_pretrained(trained.final.folder, dtype=torch.float32).eval()
    attributor = Attributor(model)
    sequences = task.sample(count, torch.Generator().manual_seed(seed))
    for number, (sequence, drivers) in enumerate(zip(sequences, task.drivers(sequences).tolist(), strict=True), start=1):
        for step, driver in enumerate(drivers, start=1):
            pos = task.n_prompt - 2 + step
            answer = int(sequence[pos + 1])
            with torch.no_grad():
                said = int(model(sequence[None, : pos + 1], use_cache=False).logits[0, -1].argmax())
            yield Case(
                id=f"{prefix}-{number}-step{step}",
                task=name,
                attributor=attributor,
                token_ids=tuple(sequence[: pos + 1].tolist()),
                token_id=answer,
                evidence=frozenset({driver}),
                steps=(frozenset({driver}),),
                correct=said == answer,
            )
