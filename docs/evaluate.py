"""Measure everything that `docs/evaluation.md` says, and write it: `make eval` (about an hour of one CPU core; a stopped run goes on).

1. Suites: `tracestore eval` over the report sets, all methods.
2. Single edges against interventions; sanity; both appended case by case as well.
3. Components, from traces of report prompts in a graph store, by Cypher.
4. The page and its pictures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import torch

from docs.evaluation_components import component_rows
from docs.evaluation_cost import cost_rows, stored_rows
from docs.evaluation_sections import Measured, page
from tracestore import api
from tracestore.evaluate import evaluation, sanity
from tracestore.evaluate.annotated import Annotated
from tracestore.evaluate.case import Case
from tracestore.evaluate.measures.edges import Channel, edge_rows
from tracestore.evaluate.methods import METHODS, SHARES, TRIED, find_methods
from tracestore.evaluate.runner import Row
from tracestore.evaluate.suites.questions import language_cases
from tracestore.evaluate.suites.registry import SUITES
from tracestore.extract.loading import LoadedModel
from tracestore.model import Method

DOCS = Path(__file__).parent
LIMITS_BY_SUITE = {"chase": 40, "circuits": 40, "prompts": None, "reasoning": 12, "commonsense": 24}
STORED = 12
EDGE_METHODS: tuple[tuple[Method | Literal["sensitivity"], Channel], ...] = (
    ("frozen", "VALUE"),
    ("secant", "VALUE"),
    ("secant", "KEY"),
    ("sensitivity", "VALUE"),
    ("sensitivity", "KEY"),
)
DUPLICATES = (
    ("The secret word is mango.", "The secret word is"),
    ("The meeting takes place on Thursday.", "The meeting takes place on"),
    ("The lost ring was found in Oslo.", "The lost ring was found in"),
    ("The captain of the ship is called Nadia.", "The captain of the ship is called"),
    ("The painting shows a horse.", "The painting shows a"),
)


def kept(path: Path, name: str, make: Callable[[], Iterable[Row]], *, as_is: bool = False) -> list[Row]:
    """Give rows from a file of this run, or make them and keep them there one by one; `as_is`: only what is there."""
    file = path / f"{name}.done.jsonl"
    if not file.exists() and as_is:
        file = path / f"{name}.part.jsonl"
        if not file.exists():
            return []
    elif not file.exists():
        partial_file = path / f"{name}.part.jsonl"
        with partial_file.open("w", encoding="utf-8") as out:
            for row in make():
                out.write(json.dumps(row) + "\n")
                out.flush()
        partial_file.rename(file)
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def report_prompts(count: int) -> list[Annotated]:
    """Give the first report prompts, mixed over their tasks."""
    items = SUITES["prompts"].items
    assert items is not None
    return [item for item in items() if item.split == "report"][:count]


def cost_items() -> list[Annotated]:
    """Give a short and a longer prompt."""
    return [item for item in report_prompts(8) if item.task in ("negation", "planted")][:2]


def sanity_rows(load: Callable[[], LoadedModel]) -> Iterator[Row]:
    """Run every sanity check."""
    scorer = METHODS[evaluation.OURS].run
    loaded = load()
    for case in language_cases(loaded, report_prompts(4)):
        yield from sanity.randomised_weights(case, scorer)
    for annotated in report_prompts(24):
        row = sanity.padded(loaded, annotated, scorer)
        if row is not None:
            yield row
    for fact, question in DUPLICATES:
        yield sanity.duplicated(loaded, fact, question, scorer)
    for case in language_cases(loaded, report_prompts(32)):
        yield sanity.reference_agreement(case)


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("evaluation-output"))
    parser.add_argument("--model", default=api.DEMO_MODEL)
    parser.add_argument("--edges", type=int, default=16)
    parser.add_argument("--components", type=int, default=40)
    parser.add_argument("--as-is", action="store_true", help="measure nothing, write the page from what is there")
    options = parser.parse_args()
    torch.set_num_threads(1)  # processor time is what methods are charged
    loaded: list[LoadedModel] = []

    def load() -> LoadedModel:
        if not loaded:
            loaded.append(api.load_model(options.model))
        return loaded[0]

    def cases(count: int) -> Iterator[Case]:
        return language_cases(load(), report_prompts(count))

    def suite(name: str, methods: tuple[str, ...] = ()) -> None:
        say(f"suite {name} {' '.join(methods)}")
        folder, limit = (
            options.output / {TRIED: "tried", SHARES: "shares"}.get(methods, "") / name,
            0 if options.as_is else LIMITS_BY_SUITE[name],
        )
        chosen = find_methods(list(methods) or None)
        found = evaluation.run([SUITES[name]], chosen, folder, model=options.model, load=load, limit=limit)
        if methods:
            target = measured.tried if methods == TRIED else measured.shares
            target |= found.suites
            return
        measured.suites |= found.suites
        measured.reports[name] = (folder / "report.md").read_text(encoding="utf-8").removeprefix("# Evaluation\n")

    def part(name: str, make: Callable[[], Iterable[Row]]) -> list[Row]:
        say(name)
        return kept(options.output, name, make, as_is=options.as_is)

    measured = Measured()
    for name in ("chase", "circuits"):
        suite(name)
    measured.edges = part("edges", lambda: (row for case in cases(options.edges) for row in edge_rows(case, EDGE_METHODS)))
    measured.sanity = part("sanity", lambda: sanity_rows(load))
    measured.components = part("components", lambda: component_rows(load, report_prompts(options.components)))
    measured.stored = part("stored", lambda: stored_rows(load, report_prompts(STORED)))
    for name in ("prompts", "commonsense", "reasoning"):
        suite(name)
    for name in ("chase", "circuits", "prompts"):
        suite(name, TRIED)
    suite("circuits", SHARES)
    measured.cost = part("cost", lambda: cost_rows(language_cases(load(), cost_items())))
    pictures = DOCS / "evaluation"
    pictures.mkdir(exist_ok=True)
    for source in [*options.output.glob("*/*.png"), *options.output.glob("commonsense/*.html")]:
        shutil.copy(source, pictures / source.name)
    (DOCS / "evaluation.md").write_text(page(measured), encoding="utf-8")


def say(text: str) -> None:
    """Tell the time and what is done now."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


if __name__ == "__main__":
    main()
