"""Mathematics and logic from reasoning-gym (Apache-2.0), with the premises that decide the answer as evidence.

    syllogism        both premises                                  chain_sum        every term of the sum
    needle_haystack  the one statement that names the answer        leg_counting     the counted animals (tuning)

A question is asked as it stands, followed by "Answer:". The suite reads `data/reasoning.jsonl`, which this module writes (it needs
reasoning-gym, which needs a C compiler): `python -m tracestore.evaluate.suites.reasoning`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tracestore.errors import BadInputError
from tracestore.evaluate.annotated import Annotated, Split
from tracestore.model import Item, SpanRequest

_TASKS: Final[Mapping[str, tuple[Split, Mapping[str, int]]]] = {
    "syllogism": ("report", {}),
    "chain_sum": ("report", {"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 1}),
    "needle_haystack": ("report", {"min_num_statements": 4, "max_num_statements": 8}),
    "leg_counting": ("tuning", {"min_animals": 2, "max_animals": 3}),
}


def reasoning_items(count: int, *, seed: int = 0) -> Iterator[Annotated]:
    """Draw `count` questions of each task. Raises BadInputError where reasoning-gym is not installed."""
    try:
        import reasoning_gym
    except ImportError:
        raise BadInputError("this suite needs reasoning-gym: run `pip install 'tracestore[evaluate]'`") from None
    for task, (split, options) in _TASKS.items():
        for number, row in enumerate(reasoning_gym.create_dataset(task, size=count, seed=seed, **options), start=1):
            prompt = row["question"].strip() + "\nAnswer:"
            evidence = tuple(
                SpanRequest("evidence", start, end, f"premise {n}") for n, (start, end) in enumerate(_PREMISES[task](prompt, row), start=1)
            )
            item = Item(
                prompt=prompt, evidence=evidence, id=f"{task}-{seed}-{number}", expected=" " + str(row["answer"]), dataset=task, split=split
            )
            yield Annotated(item, task, split)


def _syllogism(prompt: str, row: Mapping[str, Any]) -> list[tuple[int, int]]:
    premises = [row["metadata"]["premise1"], row["metadata"]["premise2"]]
    return [(prompt.index(text), prompt.index(text) + len(text)) for text in premises]


def _chain_sum(prompt: str, row: Mapping[str, Any]) -> list[tuple[int, int]]:
    start = prompt.index(row["metadata"]["expression"])
    return [(start + m.start(), start + m.end()) for m in re.finditer(r"-?\d+", row["metadata"]["expression"])]


def _needle(prompt: str, row: Mapping[str, Any]) -> list[tuple[int, int]]:
    match = re.search(rf"\b{re.escape(row['answer'])}\b[^.]*\.", prompt)
    assert match is not None
    return [match.span()]


def _legs(prompt: str, row: Mapping[str, Any]) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\d+ \w+", prompt)]


_PREMISES: Final[Mapping[str, Callable[[str, Mapping[str, Any]], list[tuple[int, int]]]]] = {
    "syllogism": _syllogism,
    "chain_sum": _chain_sum,
    "needle_haystack": _needle,
    "leg_counting": _legs,
}


def _marked_line(annotated: Annotated) -> str:
    """Write an item as the package's files hold it, evidence marked in the text."""
    item = annotated.item
    text = item.prompt or ""
    for span in sorted(item.evidence, key=lambda span: -span.start):
        text = f"{text[: span.start]}[[{text[span.start : span.end]}]]{text[span.end :]}"
    row = {"id": item.id, "task": annotated.task, "split": annotated.split, "prompt": text, "expected": item.expected}
    return json.dumps(row, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "data" / "reasoning.jsonl"
    target.write_text("".join(_marked_line(item) for item in reasoning_items(15)), encoding="utf-8")
