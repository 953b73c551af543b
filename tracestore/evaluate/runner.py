"""Run methods over the cases of a suite, case by case; each finished case is one line of a file, so that a killed run goes on.

1. Read what is there: a line counts when it is whole and was made with the same settings.
2. For each case that is missing: every method once (processor time against a plain forward pass of the same prompt), its order measured
   against evidence and, where the suite asks for it, by removals that all methods share.
3. Append the case's line and flush it to the disk. Lines are in the order in which cases were finished, the rows that are given in the
   order of the suite.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import torch

from tracestore.errors import BadInputError, ResourceError, UnsupportedModelError
from tracestore.evaluate.annotated import Annotated
from tracestore.evaluate.case import SINK, Case, Pending, Scores
from tracestore.evaluate.measures import ranking
from tracestore.evaluate.measures.faithfulness import asked_sets, faithfulness
from tracestore.evaluate.methods import Found, Method, find_methods
from tracestore.evaluate.removing import PERTURBATIONS, Removing
from tracestore.evaluate.suites.questions import language_cases
from tracestore.evaluate.workers import Workers
from tracestore.extract.loading import LoadedModel
from tracestore.ids import content_hash

Row = dict[str, Any]
"""What one method got on one case: flat, JSON values; NaN is null. A method that cannot run on the model has REFUSED, not measures."""

REFUSED: Final = "refused"
"""Why a method gave nothing on a case: what the method said of the model."""

_VERSION: Final = 5  # raise when a measure changes, so that old lines are not mixed with new ones


class Identified(Protocol):
    """Anything with an id of its own within a file of results."""

    @property
    def id(self) -> str:
        """The id."""
        ...


class Line(NamedTuple):
    """The rows of one case or item."""

    id: str
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a line depends on beside its case. `spared` methods are not measured by removals, which are most of the cost."""

    suite: str
    model: str
    methods: tuple[str, ...]
    faithful: bool
    split: str | None = None
    spared: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Hash of the settings."""
        return content_hash({**asdict(self), "version": _VERSION})[:16]


def run_suite(
    cases: Iterable[Pending], methods: Sequence[Method], settings: RunSettings, path: Path, *, progress: Callable[[], None] | None = None
) -> list[Row]:
    """Evaluate every case that `path` (a .jsonl of rows) does not hold yet; give all rows. `progress` is called after each case."""
    known = {line.id for line in read_lines(path, settings)}
    ids = []
    for case in cases:
        ids.append(case.id)
        if case.id not in known:
            append_line(path, settings, Line(case.id, evaluate_case(case.make(), methods, settings)))
        if progress is not None:
            progress()
    return read_rows(path, settings, ids)


def run_items(
    items: Sequence[Identified],
    make: Callable[[LoadedModel, Any], Sequence[Row]],
    settings: RunSettings,
    path: Path,
    workers: Workers,
    *,
    limit: int | None = None,
    progress: Callable[[], None] | None = None,
) -> list[Row]:
    """Make the rows of the first `limit` items that `path` does not hold yet; give all rows that it holds. `progress`: after each item."""
    known = {line.id for line in read_lines(path, settings)}
    for item, rows in workers.each(make, [item for item in items[:limit] if item.id not in known]):
        append_line(path, settings, Line(item.id, rows))
        if progress is not None:
            progress()
    return read_rows(path, settings, [item.id for item in items])


def evaluate_item(loaded: LoadedModel, item: Annotated, settings: RunSettings) -> list[Row]:
    """Make a case of an item and evaluate it by the methods of `settings`."""
    (case,) = language_cases(loaded, [item])
    return evaluate_case(case, find_methods(list(settings.methods)), settings)


def append_line(path: Path, settings: RunSettings, line: Line) -> None:
    """Put the rows of one case on the disk, as one line. Raises ResourceError when that fails."""
    rows = [{key: _plain(value) for key, value in row.items()} for row in line.rows]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"settings": settings.key, "id": line.id, "rows": rows}, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ResourceError(
            f"results cannot be written to {path} ({error.strerror}): free some space, or choose another --output"
        ) from error


def read_lines(path: Path, settings: RunSettings) -> Iterator[Line]:
    """Read the lines of a results file that were made with these settings. A line that a kill cut off is mended by being ignored."""
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8")
    if text and not text.endswith("\n"):  # cut off: what follows must not be glued to it
        whole = text[: text.rfind("\n") + 1]
        path.write_text(whole, encoding="utf-8")
        text = whole
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            raise BadInputError(f"{path} is not a results file of this command: give another --output") from None
        if entry.get("settings") == settings.key:
            yield Line(entry["id"], entry["rows"])


def read_rows(path: Path, settings: RunSettings, order: Sequence[str] = ()) -> list[Row]:
    """Read the rows of a results file, those of the cases named in `order` first and in that order."""
    rank = {name: number for number, name in enumerate(order)}
    lines = sorted(read_lines(path, settings), key=lambda line: rank.get(line.id, len(rank)))
    return [row for line in lines for row in line.rows]


def evaluate_case(case: Case, methods: Sequence[Method], settings: RunSettings) -> list[Row]:
    """Measure every method that suits a case. Methods that share a computation share its cost: it is run once, each charged all of it."""
    _plain_forward(case)  # to warm up
    forward = min(processor_seconds(lambda: _plain_forward(case)) for _ in range(3))
    computed: dict[int, tuple[Found | str, float]] = {}
    for method in methods:
        if method.suits(case) and id(method.compute) not in computed:
            computed[id(method.compute)] = _timed(method, case)
    asked, refused = [], []
    for method in (method for method in methods if method.suits(case)):
        found, seconds = computed[id(method.compute)]
        if isinstance(found, str):
            refused.append((method, found))
        else:
            asked.append((method, found, seconds))
    scores = [method.read(found) for method, found, _ in asked]
    orders = [ranking.order(one) for (method, _, _), one in zip(asked, scores, strict=True) if method.name not in settings.spared]
    removals = iter(_by_removal(case, orders)) if settings.faithful else repeat({})
    rows: list[Row] = [
        {
            **_about(case, method, settings),
            "forwards": seconds / forward,
            **({"closure": found["closure"]} if "closure" in found else {}),
            **_against_evidence(case, one),
            **({} if method.name in settings.spared else next(removals)),
        }
        for (method, found, seconds), one in zip(asked, scores, strict=True)
    ]
    return rows + [{**_about(case, method, settings), REFUSED: reason} for method, reason in refused]


def _timed(method: Method, case: Case) -> tuple[Found | str, float]:
    """Give what a method found and its processor time, s; or why it has no place for the model: such a method has no number there."""
    started = time.process_time()
    try:
        found: Found | str = method.compute(case)
    except UnsupportedModelError as error:
        found = str(error)
    return found, time.process_time() - started


def _about(case: Case, method: Method, settings: RunSettings) -> Row:
    return {
        "suite": settings.suite,
        "id": case.id,
        "task": case.task,
        "method": method.name,
        "correct": case.correct,
        "n_tokens": case.length,
    }


def _plain_forward(case: Case) -> None:
    with torch.no_grad():
        case.attributor.model(input_ids=case.ids, use_cache=False)


def processor_seconds(run: Callable[[], object]) -> float:
    """Give the processor time of one run, s."""
    started = time.process_time()
    run()
    return time.process_time() - started


def _against_evidence(case: Case, scores: Scores) -> Row:
    """Measure an order against the evidence, without the first token and, under names that end in `_with_first`, with it.

    Without it: neither in the order nor in a stretch of evidence that holds other tokens too. Most attention rests on a first token
    whatever it says, so evidence that begins a text would be found by any order that counts it.
    """
    found: Row = {}
    if not case.evidence:
        return found
    inner = tuple(step - {SINK} or step for step in case.steps)
    bare = frozenset[int]().union(*inner) or case.evidence - {SINK} or case.evidence
    for suffix, steps, evidence in (("", inner, bare), ("_with_first", case.steps, case.evidence)):
        left_out = set[int]() if suffix else {SINK} - evidence
        ranked = ranking.order(scores, left_out)
        recalls = ranking.step_recalls(ranked, steps)
        found |= {
            f"top1{suffix}": ranking.precision_at(ranked, evidence, 1),
            f"precision3{suffix}": ranking.precision_at(ranked, evidence, 3),
            f"mrr{suffix}": ranking.reciprocal_rank(ranked, evidence),
            f"share{suffix}": ranking.share_on(scores, evidence, left_out),
            f"chain{suffix}": float(all(recalls)),
            f"f1{suffix}": ranking.token_f1(ranked, evidence),
            f"iou{suffix}": ranking.token_iou(ranked, evidence),
            f"auprc{suffix}": ranking.average_precision(ranked, evidence),
        }
        if not suffix:
            found |= {f"step{number}": recall for number, recall in enumerate(recalls, start=1)}
    return found


def _by_removal(case: Case, orders: Sequence[Sequence[int]]) -> list[Row]:
    """Measure orders of positions by removals, those of all orders in common batches: a pass of few tokens is slow for its size."""
    removing = Removing(case)
    found: list[Row] = [{} for _ in orders]
    for how in PERTURBATIONS:
        removing.measure(how, [chosen for ranked in orders for chosen in asked_sets(case, ranked, how)])
        for row, ranked in zip(found, orders, strict=True):
            measured = faithfulness(removing, ranked, how)
            if measured is not None:
                row |= {f"{name}_{how}": value for name, value in asdict(measured).items() if value is not None}
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return None if not np.isfinite(value) else float(value)
    return value
