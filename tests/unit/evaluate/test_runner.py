"""Rows are appended case by case, survive a cut-off line, and belong to their settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tracestore.errors import BadInputError
from tracestore.evaluate.case import Case, Pending
from tracestore.evaluate.measures.faithfulness import cuts_of
from tracestore.evaluate.methods import METHODS, find_methods
from tracestore.evaluate.runner import RunSettings, evaluate_case, read_rows, run_suite
from tracestore.evaluate.suites.known import circuit_cases
from tracestore.evaluate.suites.registry import DEFAULT_SUITES, SUITES, find_suite

NAMES = ["secant.total", "frozen.total", "random", "leave_one_out"]
SETTINGS = RunSettings("circuits", "", tuple(NAMES), False)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [pending.make() for pending in circuit_cases("hop3", 3)]


def ready(cases: Sequence[Case]) -> list[Pending]:
    """Give cases as a suite gives them."""
    return [Pending(case.id, partial(_same, case)) for case in cases]


def _same(case: Case) -> Case:
    return case


def test_rows_say_what_was_found_and_a_killed_run_goes_on(cases: list[Case], tmp_path: Path) -> None:
    path, methods = tmp_path / "rows.jsonl", find_methods(NAMES)
    first = run_suite(ready(cases[:2]), methods, SETTINGS, path)
    by = {(row["id"], row["method"]): row for row in first}
    assert [by[case.id, "secant.total"]["chain"] for case in cases[:2]] == [1.0, 1.0]
    assert all(by[case.id, "leave_one_out"]["top1"] == 1.0 for case in cases[:2])
    with path.open("a") as file:
        file.write(path.read_text().splitlines()[0][:-40])  # a line that a kill cut off
    made: list[str] = []

    def made_again(case: Case) -> Case:
        made.append(case.id)
        return case

    rows = run_suite([Pending(case.id, partial(made_again, case)) for case in cases], methods, SETTINGS, path)
    assert made == [cases[2].id], "a case whose rows are there was made again"
    assert {row["id"] for row in rows} == {case.id for case in cases}
    assert [row for row in rows if row["id"] != cases[2].id] == first, "what was there was computed again"
    assert len(path.read_text().splitlines()) == 3


def test_other_settings_are_other_rows(cases: list[Case], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    run_suite(ready(cases[:1]), find_methods(["random"]), replace(SETTINGS, methods=("random",)), path)
    assert read_rows(path, SETTINGS) == []
    assert json.loads(path.read_text())["rows"][0]["n_tokens"] == 9


def test_a_file_that_holds_something_else_is_refused(cases: list[Case], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("once upon a time\n")
    with pytest.raises(BadInputError, match="not a results file"):
        run_suite(ready(cases), find_methods(["random"]), SETTINGS, path)
    assert path.read_text() == "once upon a time\n"


def test_names_that_are_not_there_are_refused_with_what_is() -> None:
    with pytest.raises(BadInputError, match=r"no method 'secret'.*secant\.direct"):
        find_methods(["secret"])
    with pytest.raises(BadInputError, match=r"no suite 'x'.*chase, chase_families, circuits"):
        find_suite("x")
    everywhere = {"chase", "circuits", "prompts", "held_out", "long", "reasoning", "commonsense"}
    assert set(SUITES) - {"chase_families"} == set(DEFAULT_SUITES) == everywhere
    assert len(METHODS) > 20


def test_a_method_is_left_out_on_a_case_that_is_too_long_for_it(cases: list[Case]) -> None:
    (method,) = find_methods(["leave_one_out"])
    for longest, count in ((cases[0].length, 1), (cases[0].length - 1, 0)):
        assert len(evaluate_case(cases[0], [replace(method, longest=longest)], SETTINGS)) == count


def test_cuts_hold_the_first_three_and_the_whole() -> None:
    assert cuts_of(0) == []
    assert cuts_of(5) == [1, 2, 3, 4, 5]
    assert cuts_of(30) == [1, 2, 3, 4, 17, 30]


def test_every_method_gives_a_finite_number_for_every_token() -> None:
    (pending,) = circuit_cases("induction", 1)
    case = pending.make()
    for method in METHODS.values():
        scores = method.run(case)
        assert scores.shape == (case.length,), method.name
        assert np.isfinite(scores).all(), method.name


def test_spared_methods_are_judged_by_evidence_alone(cases: list[Case]) -> None:
    settings = replace(SETTINGS, faithful=True, spared=("frozen.total",))
    rows = {row["method"]: row for row in evaluate_case(cases[0], find_methods(NAMES), settings)}
    without = {row["method"]: row for row in evaluate_case(cases[0], find_methods(NAMES), replace(settings, spared=()))}
    assert "comprehensiveness_column" not in rows["frozen.total"]
    assert rows["frozen.total"]["chain"] == without["frozen.total"]["chain"]
    for name in ("secant.total", "random", "leave_one_out"):  # each keeps its own numbers
        assert {key: value for key, value in rows[name].items() if key != "forwards"} == {
            key: value for key, value in without[name].items() if key != "forwards"
        }
    assert settings.key != replace(settings, spared=()).key


def test_what_is_kept_alone_is_measured_by_columns_only(cases: list[Case]) -> None:
    (row,) = evaluate_case(cases[0], find_methods(["leave_one_out"]), replace(SETTINGS, faithful=True))
    assert {name for name in row if name.startswith(("comprehensiveness", "sufficiency", "deletion", "insertion"))} == {
        *("comprehensiveness_column", "comprehensiveness_mean", "sufficiency_column", "insertion_column"),
        *("deletion_column", "deletion_mean"),
    }


def test_evidence_that_begins_the_text_is_not_found_by_looking_at_the_first_token(cases: list[Case]) -> None:
    sentence, word = frozenset({0, 1, 2}), frozenset({5})
    case = replace(cases[0], evidence=sentence | word, steps=(sentence, word))
    first = replace(find_methods(["random"])[0], name="first", compute=lambda case: {"scores": -(np.arange(case.length, dtype=float) ** 2)})
    (row,) = evaluate_case(case, [first], SETTINGS)
    assert (row["top1"], row["top1_with_first"]) == (1.0, 1.0)  # position 1 comes next, and is evidence as well
    late = replace(
        first, name="late", compute=lambda case: {"scores": np.where(np.arange(case.length) == 0, 9.0, np.arange(case.length) / 9)}
    )
    (row,) = evaluate_case(case, [late], SETTINGS)
    assert row["top1_with_first"] == 1.0
    assert row["top1"] == 0.0
    alone = replace(case, evidence=frozenset({0}), steps=(frozenset({0}),))  # nothing else is marked: then it counts
    (row,) = evaluate_case(alone, [late], SETTINGS)
    assert row["top1"] == 1.0
