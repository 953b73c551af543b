"""The suites by the names that users type. A suite gives cases; whether removals are measured on them is its own choice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracestore.errors import BadInputError
from tracestore.evaluate.annotated import Annotated, packaged, read_user_file

if TYPE_CHECKING:
    from tracestore.evaluate.case import Pending


@dataclass(frozen=True, slots=True)
class Suite:
    """A named set of questions. `faithful` says that removals are measured too: where the drivers are known, there is no need.

    `items` are questions to a language model, in order, mixed over the tasks; `cases` come with a model of their own.
    """

    name: str
    about: str
    faithful: bool
    items: Callable[[], list[Annotated]] | None = None
    cases: Callable[[int | None], Iterator[Pending]] | None = None
    proofs: bool = False  # do its items hold a chain and a proof
    by_name: bool = False  # is it run only where it is asked for, because its models take minutes to train


def _mixed(items: list[Annotated]) -> list[Annotated]:
    """Order items so that any first part of a split holds every task of it: the first of each, then the second of each."""
    seen: Counter[tuple[str, str]] = Counter()
    keyed = []
    for item in items:
        seen[item.task, item.split] += 1
        keyed.append((seen[item.task, item.split], item))
    return [item for _, item in sorted(keyed, key=lambda pair: pair[0])]


def _packaged(name: str) -> list[Annotated]:
    return _mixed(packaged(name))


def _chase(limit: int | None) -> Iterator[Pending]:
    from tracestore.evaluate.suites.known import chase_cases

    return chase_cases(40 if limit is None else limit)


def _chase_families(limit: int | None) -> Iterator[Pending]:
    from tracestore.evaluate.suites.known import chase_family_cases

    return chase_family_cases(20 if limit is None else limit)


def _circuits(limit: int | None) -> Iterator[Pending]:
    from tracestore.evaluate.suites.circuits import NAMES
    from tracestore.evaluate.suites.known import circuit_cases

    for name in NAMES:
        yield from circuit_cases(name, 40 if limit is None else limit)


SUITES: Final[dict[str, Suite]] = {
    suite.name: suite
    for suite in (
        Suite("chase", "pointer chase: five look-ups, one true driver each; a model trained on the spot", False, cases=_chase),
        Suite(
            "chase_families",
            "the same pointer chase, learnt by models of several families",
            False,
            cases=_chase_families,
            by_name=True,
        ),
        Suite("circuits", "compiled circuits: three hops, induction, comparison", False, cases=_circuits),
        Suite(
            "prompts",
            "facts, arithmetic, indirect objects, two hops, induction, negation, planted evidence, retrieval",
            True,
            items=partial(_packaged, "prompts"),
        ),
        Suite(
            "held_out",
            "the tasks of `prompts` in new words, and five task families that no rule was developed on: written after the rules had been "
            "compared",
            True,
            items=partial(_packaged, "held_out"),
        ),
        Suite(
            "long",
            "retrieval, induction and two hops over 128, 256 and 512 tokens of the packaged model's tokenizer",
            True,
            items=partial(_packaged, "long"),
        ),
        Suite("reasoning", "mathematics and logic from reasoning-gym, premises as evidence", True, items=partial(_packaged, "reasoning")),
        Suite(
            "commonsense",
            "commonsense items with evidence, rationale and proof",
            True,
            items=partial(_packaged, "commonsense"),
            proofs=True,
        ),
    )
}


DEFAULT_SUITES: Final = tuple(name for name, suite in SUITES.items() if not suite.by_name)
"""Suites that are run where none is asked for."""


def find_suite(name: str) -> Suite:
    """Give a suite by name, or make one of a user's .jsonl file. Raises BadInputError for neither."""
    if name in SUITES:
        return SUITES[name]
    path = Path(name)
    if path.suffix == ".jsonl":
        if not path.is_file():
            raise BadInputError(f"there is no file {name}")
        return Suite(path.stem, "a user's file", True, items=lambda: list(read_user_file(path)))
    raise BadInputError(f"there is no suite {name!r}: choose {', '.join(SUITES)}, or give a .jsonl file of items")


def suite_items(suite: Suite, split: str | None) -> list[Annotated]:
    """Give the items of a suite in a split (None: all), in order; none for a suite with cases of its own."""
    return [] if suite.items is None else [item for item in suite.items() if split in (None, item.split)]
