"""The judgements of docs/evaluation.md follow from the rows: who wins, what is met, what is missed."""

from __future__ import annotations

from docs.evaluation_accuracy import accuracy_section
from docs.evaluation_bars import bars_section
from tracestore.evaluate.runner import Row


def rows(suite: str, task: str, values: dict[str, list[float]], measure: str) -> list[Row]:
    return [
        {"suite": suite, "task": task, "id": f"{suite}-{n}", "method": method, "forwards": 2.0, "correct": True, measure: value}
        for method, found in values.items()
        for n, value in enumerate(found)
    ]


def test_the_best_is_bold_and_what_is_not_shown_to_be_below_it_is_marked() -> None:
    found = rows("reasoning", "x", {"secant.drive": [1.0, 1.0] * 10, "ifr": [1.0, 0.9] * 10, "random": [0.1, 0.2] * 10}, "mrr")
    found += rows("reasoning", "x", {"alti": [1.0, 0.2, *[1.0] * 8]}, "mrr")
    lines = [line.split("|") for line in accuracy_section({"reasoning": found}).splitlines() if line.startswith("| `")]
    cells = {line[1].strip(): line[2].strip() for line in lines}
    assert cells["`secant.drive`"] == "**1.00 [1.00, 1.00]**"
    assert cells["`ifr`"].startswith("0.95")
    assert not cells["`ifr`"].endswith("~")  # below again and again
    assert cells["`random`"].startswith("0.15")
    assert cells["`alti`"].endswith("(of 10) ~")  # below once in ten: not shown
    assert cells["`saliency`"] == "-"


def test_bars_are_met_or_missed_by_the_numbers() -> None:
    chase = rows("chase", "pointer_chase", {"secant.drive": [1.0] * 6, "frozen.drive": [1.0] * 5 + [0.0]}, "top1")
    hop3 = rows("circuits", "hop3", {"secant.drive": [1.0] * 6, "frozen.drive": [0.5] * 6}, "step1")
    values = {"secant.drive": [5.0, 6.0, 7.0, 8.0, 9.0, 9.5], "leave_one_out": [5.1, 6.1, 7.1, 8.1, 9.1, 9.6], "random": [1.0] * 6}
    prompts = rows("prompts", "facts", values, "comprehensiveness_column")
    page = bars_section({"chase": chase, "circuits": hop3, "prompts": prompts})
    first = next(line for line in page.splitlines() if "the true entry is first" in line)
    assert first.count(": met") == 1
    assert first.count(": missed") == 1  # where nothing was measured nothing is met or missed
    below = next(line for line in page.splitlines() if line.startswith("| `leave_one_out` (bar: not below)"))
    assert "-0.10 [-0.10, -0.10] **below**" in below
    assert "above" in next(line for line in page.splitlines() if line.startswith("| `random` (bar: above)"))
