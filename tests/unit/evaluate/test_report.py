"""Tables from rows: means, intervals and pairs, computed by hand on a few rows."""

from __future__ import annotations

import pytest

from tracestore.evaluate.report import difference, interval, paired_table, suite_report, table
from tracestore.evaluate.runner import Row


def row(case: str, method: str, value: float | None, **more: object) -> Row:
    return {"id": case, "task": "t", "method": method, "correct": True, "forwards": 2.0, "mrr": value, **more}


ROWS = [row(f"c{n}", "ours", 0.5 + 0.1 * n) for n in range(4)] + [row(f"c{n}", "theirs", 0.4 + 0.1 * n) for n in range(4)]


def test_means_and_pairs() -> None:
    assert interval(ROWS, "ours", "mrr").centre == pytest.approx(0.65)
    found = difference(ROWS, "ours", "theirs", "mrr")
    assert [found.centre, found.low, found.high] == pytest.approx([0.1, 0.1, 0.1])
    assert "**0.10 [0.10, 0.10]**" in paired_table(ROWS, "ours", [("mrr", "MRR")])


def test_a_case_that_one_method_lacks_is_no_pair_and_null_is_no_zero() -> None:
    rows = [*ROWS, row("c9", "ours", 1.0), row("c8", "theirs", None)]
    assert difference(rows, "ours", "theirs", "mrr").n == 4
    assert interval(rows, "theirs", "mrr").n == 4


def test_measures_that_no_row_has_are_left_out() -> None:
    text = table(ROWS, [("mrr", "MRR"), ("f1", "F1")])
    assert text.splitlines()[0] == "| method | MRR | forwards |"
    assert text.splitlines()[2].startswith("| ours | 0.65 [")


def test_right_and_wrong_answers_are_apart() -> None:
    rows = [r | {"comprehensiveness_column": 1.0} for r in ROWS]
    rows += [row("w", "ours", 0.0, correct=False, comprehensiveness_column=3.0)]
    text = suite_report("prompts", "some prompts", rows, "ours")
    assert "Marked evidence, right answers (4 cases)" in text
    assert "Marked evidence, wrong answers (1 cases)" in text
    assert "5 cases." in text
