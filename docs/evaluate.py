"""Measure everything that `docs/evaluation.md` says, and write it: `make eval` (hours of a CPU core; a stopped run goes on).

Prompts are shared among processes (--jobs), each with one thread.

1. Suites: `tracestore eval` over the report sets, all methods (`long`: LONG_METHODS).
2. Single edges against interventions; sanity; both appended case by case as well.
3. Components, from traces of report prompts in a graph store, by Cypher.
4. The page and its pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from docs.evaluation_components import component_rows
from docs.evaluation_cost import cost_rows, stored_rows
from docs.evaluation_families import SHOWN, training_rows
from docs.evaluation_rows import pack, unpack
from docs.evaluation_sections import Measured, page, tables
from tracestore import api
from tracestore.evaluate import evaluation, sanity
from tracestore.evaluate.annotated import Annotated
from tracestore.evaluate.measures.edges import Channel, edge_rows
from tracestore.evaluate.methods import METHODS, SHARES, TRIED, find_methods
from tracestore.evaluate.runner import Identified, Row, RunSettings, run_items
from tracestore.evaluate.suites.questions import language_cases
from tracestore.evaluate.suites.registry import SUITES, suite_items
from tracestore.evaluate.workers import Workers
from tracestore.extract.loading import LoadedModel
from tracestore.model import Method

DOCS = Path(__file__).parent
SCORER = METHODS[evaluation.OURS].run
KNOWN = ("chase", "circuits")
KNOWN_LIMITS = {"chase": 40, "circuits": 40, "chase_families": 10}
LANGUAGE = ("prompts", "held_out", "commonsense", "reasoning", "long")
"""Suites of prompts, in the order in which they are run."""

FEWER_METHODS = (
    *("secant.drive", "secant.direct", "secant.total", "secant.removal", "secant.score"),
    *("frozen.drive", "frozen.direct", "frozen.total", "secant_h25.direct", "attnlrp.score"),
    *("random", "recency", "first_token", "raw_attention", "rollout", "attention_norm", "direct_logit", "alti", "ifr"),
    *("saliency", "gradient_x_input", "integrated_gradients", "ablation_regression", "leave_one_out", "leave_one_out_mean"),
)
"""Without the variants that were compared on `prompts`."""

SPARED = (
    *(f"{rule}.{column}" for rule in ("secant", "frozen") for column in ("total", "removal", "score")),
    *("linear.total", "ratio.total", "sensitivity.total", "attnlrp.score", "first_token"),
)
FURTHER_SPARED = (*SPARED, "attention_norm", "direct_logit", "alti", "saliency", "integrated_gradients")
SPARED_BY_SUITE: Mapping[str, Sequence[str]] = {
    "held_out": FURTHER_SPARED,
    **dict.fromkeys(
        ("commonsense", "reasoning", "long"),
        sorted({*FEWER_METHODS} - {"secant.drive", "secant.direct", "random", "raw_attention", "leave_one_out"}),
    ),
}
"""Rankings that are measured against evidence alone: removals are most of the cost. SPARED where a suite is not named."""

LONG_METHODS = (
    *("secant.drive", "secant.direct", "secant.total", "frozen.drive", "frozen.direct", "frozen.total"),
    *("random", "recency", "raw_attention", "attention_norm", "direct_logit", "saliency", "gradient_x_input", "leave_one_out"),
)
"""For long prompts: their passes do not grow in number with the prompt, but for leave_one_out, which is left out past a length."""

TUNING_METHODS = (
    *("secant.drive", "secant.direct", "secant.removal", "frozen.drive", "frozen.direct", "secant_h25.direct", "linear.direct"),
    "leave_one_out",
)
"""For the items on which the ranking was chosen."""

SECOND_METHODS = (
    *("secant.drive", "secant.direct", "frozen.drive", "frozen.direct", "random", "recency", "raw_attention", "rollout", "ifr"),
    *("gradient_x_input", "leave_one_out"),
)
"""For a second language model."""

METHODS_BY_SUITE: Mapping[str, Sequence[str]] = {
    "chase_families": SHOWN,
    **dict.fromkeys(("held_out", "commonsense", "reasoning"), FEWER_METHODS),
    "long": LONG_METHODS,
}
"""All methods where a suite is not named."""

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


def kept(file: Path, make: Callable[[], Iterable[Row]], *, as_is: bool = False) -> list[Row]:
    """Give rows from a file of this run, or make them and keep them there when they are complete; `as_is`: only what is there."""
    if not file.exists():
        if as_is:
            return []
        partial_file = file.with_suffix(".part")
        partial_file.write_text("".join(json.dumps(row) + "\n" for row in make()), encoding="utf-8")
        partial_file.rename(file)
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def report_prompts(count: int) -> list[Annotated]:
    """Give the first report prompts, mixed over their tasks."""
    return suite_items(SUITES["prompts"], "report")[:count]


def cost_items() -> list[Annotated]:
    """Give a short and a longer prompt."""
    return [item for item in report_prompts(8) if item.task in ("negation", "planted")][:2]


def edges(loaded: LoadedModel, item: Annotated) -> list[Row]:
    """Compare single edges of a prompt with interventions."""
    (case,) = language_cases(loaded, [item])
    return edge_rows(case, EDGE_METHODS)


class Duplicate(NamedTuple):
    """A fact that is said once and twice before a question."""

    id: str
    question: str


def weights(loaded: LoadedModel, item: Annotated) -> list[Row]:
    """Randomise layers."""
    (case,) = language_cases(loaded, [item])
    return sanity.randomised_weights(case, SCORER)


def padding(loaded: LoadedModel, item: Annotated) -> list[Row]:
    """Put an irrelevant sentence in front."""
    row = sanity.padded(loaded, item, SCORER)
    return [] if row is None else [row]


def duplicate(loaded: LoadedModel, said: Duplicate) -> list[Row]:
    """Say a fact twice."""
    return [sanity.duplicated(loaded, said.id, said.question, SCORER)]


def references(loaded: LoadedModel, item: Annotated) -> list[Row]:
    """Compare the two leave-one-out orders."""
    (case,) = language_cases(loaded, [item])
    return [sanity.reference_agreement(case)]


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("evaluation-output"))
    parser.add_argument("--model", default=api.DEMO_MODEL)
    parser.add_argument("--edges", type=int, default=16)
    parser.add_argument("--components", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--second", default="", help="folder of a second language model (docs/evaluation-larger-models.md)")
    parser.add_argument("--as-is", action="store_true", help="measure nothing, write the page from what is there")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    unpack(options.output)
    torch.set_num_threads(1)  # processor time is what methods are charged
    with Workers(partial(api.load_model, options.model), options.jobs) as workers:
        measured = measure(workers, options)
    measured.second = second_model(options)
    pack(options.output)
    pictures = DOCS / "evaluation"
    pictures.mkdir(exist_ok=True)
    for source in [*options.output.glob("*/*.png"), *options.output.glob("commonsense/*.html")]:
        shutil.copy(source, pictures / source.name)
    (DOCS / "evaluation.md").write_text(page(measured), encoding="utf-8")
    (DOCS / "evaluation-tables.md").write_text(tables(measured), encoding="utf-8")


def measure(workers: Workers, options: argparse.Namespace) -> Measured:
    """Measure all parts that are not there yet."""
    measured = Measured()

    def suite(name: str, folder: Path, methods: Sequence[str] | None = None, split: str = "report") -> evaluation.Evaluation:
        say(f"suite {name} {folder}")
        limit = 0 if options.as_is else KNOWN_LIMITS.get(name)
        chosen = find_methods(None if methods is None else list(methods))
        spared = () if split == "tuning" else SPARED_BY_SUITE.get(name, SPARED)
        return evaluation.run([SUITES[name]], chosen, folder, model=options.model, workers=workers, limit=limit, split=split, spared=spared)

    def whole_suite(name: str) -> None:
        folder = options.output / name
        found = suite(name, folder, METHODS_BY_SUITE.get(name))
        measured.suites |= found.suites
        if found.steps:
            measured.steps = evaluation.steps_report(found.steps).replace("## ", "### ", 1)
        measured.reports[name] = (folder / "report.md").read_text(encoding="utf-8").removeprefix("# Evaluation\n")

    def part(name: str, items: Sequence[Identified], make: Callable[[LoadedModel, Any], list[Row]]) -> list[Row]:
        say(name)
        settings = RunSettings(name, options.model, (), False)
        return run_items(items, make, settings, options.output / f"{name}.jsonl", workers, limit=0 if options.as_is else None)

    def at_once(name: str, make: Callable[[], Iterable[Row]]) -> list[Row]:
        say(name)
        return kept(options.output / f"{name}.done.jsonl", make, as_is=options.as_is)

    for name in KNOWN_LIMITS:
        whole_suite(name)
    measured.families = at_once("families", training_rows)
    measured.edges = part("edges", report_prompts(options.edges), edges)
    measured.sanity = [
        *part("sanity-weights", report_prompts(4), weights),
        *part("sanity-padding", report_prompts(24), padding),
        *part("sanity-duplicate", [Duplicate(*said) for said in DUPLICATES], duplicate),
        *part("sanity-references", report_prompts(32), references),
    ]
    measured.components = at_once("components", lambda: component_rows(workers.load, report_prompts(options.components)))
    measured.stored = at_once("stored", lambda: stored_rows(workers.load, report_prompts(STORED)))
    for name in LANGUAGE:
        whole_suite(name)
    for name in ("prompts", "commonsense"):
        measured.tuning += suite(name, options.output / "tuning" / name, TUNING_METHODS, "tuning").suites[name]
    for name in (*KNOWN, "prompts"):
        measured.tried |= suite(name, options.output / "tried" / name, TRIED).suites
    measured.shares |= suite("circuits", options.output / "shares" / "circuits", SHARES).suites
    measured.cost = at_once("cost", lambda: cost_rows(language_cases(workers.load(), cost_items())))
    return measured


def second_model(options: argparse.Namespace) -> list[Row]:
    """Measure the fresh items on a second language model, where one is named or was measured before."""
    file = options.output / "second.txt"
    if options.second:
        file.write_text(options.second, encoding="utf-8")
    if not file.exists():
        return []
    say("second model")
    model = file.read_text(encoding="utf-8")
    with Workers(partial(api.load_model, model), options.jobs) as workers:
        found = evaluation.run(
            [SUITES["held_out"]],
            find_methods(list(SECOND_METHODS)),
            options.output / "second",
            model=model,
            workers=workers,
            limit=0 if options.as_is else None,
        )
    return found.suites["held_out"]


def say(text: str) -> None:
    """Tell the time and what is done now."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


if __name__ == "__main__":
    main()
