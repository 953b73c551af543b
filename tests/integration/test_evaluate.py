"""`tracestore eval` end to end: the bars that must hold on tasks whose drivers are known, the files it leaves, and going on from them."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.support.command_line import ok, run
from tracestore.evaluate import runner
from tracestore.evaluate.suites import known
from tracestore.evaluate.suites.pointer_chase_model import TrainedChase
from tracestore.evaluate.suites.registry import SUITES, suite_items

CLOSED = 1e-4
"""Conservation in float32, relative to the explained quantity or the standard deviation of the logits."""


def of(rows: list[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["method"] == method]


def test_circuits_every_step_of_every_chain_is_found(tmp_path: Path) -> None:
    done = ok(
        "eval", "-s", "circuits", "--methods", "secant.drive,secant.total,frozen.total,random", "--limit", "5", "-o", tmp_path, "--json"
    )
    rows = done.json["rows"]
    for method in ("secant.drive", "secant.total"):
        ours = of(rows, method)
        assert len(ours) == 15
        assert all(row["chain"] == row["step1"] == row["step2"] == 1.0 and row["closure"] < CLOSED for row in ours)
        assert all(row["step3"] == 1.0 for row in ours if row["task"] == "hop3")
    hops = [row for row in of(rows, "frozen.total") if row["task"] == "hop3"]
    assert all(row["step3"] == 1.0 for row in hops)
    assert sum(row["chain"] for row in hops) < len(hops) / 2, "a frozen pattern cannot see why a head looked there"
    assert sum(row["chain"] for row in of(rows, "random")) < 5
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == len(rows)
    report = (tmp_path / "report.md").read_text()
    assert "| secant.total | 1.00 [1.00, 1.00] | 1.00 [1.00, 1.00] |" in report
    assert (tmp_path / "circuits-auprc.png").read_bytes().startswith(b"\x89PNG")


def test_chase_the_entry_looked_up_is_first_and_a_second_run_does_nothing(
    chase: TrainedChase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "pointer_chase_model", lambda *_: chase)
    monkeypatch.setattr(known, "PointerChase", lambda: chase.task)
    words = (
        "eval",
        "-s",
        "chase",
        "--methods",
        "secant.drive,frozen.direct,secant.direct,random",
        "--limit",
        "6",
        "-o",
        tmp_path,
        "--json",
    )
    rows = ok(*words).json["rows"]
    for method in ("secant.drive", "frozen.direct", "secant.direct"):
        assert len(of(rows, method)) == 6 * chase.task.steps
        assert all(row["correct"] and row["top1"] == row["chain"] == 1.0 and row["closure"] < CLOSED for row in of(rows, method))
    assert sum(row["top1"] for row in of(rows, "random")) < 6

    def never(*_: object) -> None:
        raise AssertionError("a case that is there was measured again, or its model was asked for")

    monkeypatch.setattr(runner, "evaluate_case", never)
    monkeypatch.setattr(known, "pointer_chase_model", never)
    assert ok(*words).json["rows"] == rows


def test_a_users_file_is_judged_on_its_report_items(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    line = {"id": "a", "prompt": "The capital of France is", "expected": " Paris", "evidence": [{"start": 15, "end": 21}], "dataset": "geo"}
    path.write_text(
        json.dumps(line) + "\n" + json.dumps(line | {"id": "b", "split": "tuning", "prompt": "The capital of Norway is"}) + "\n"
    )
    words = ("eval", "-s", path, "--methods", "frozen.direct,random", "-o", tmp_path / "out", "--json")
    done = ok(*words)
    assert done.json["cases"] == {"mine": 1}, "an item of the tuning set is not reported"
    (ours,) = of(done.json["rows"], "frozen.direct")
    assert (ours["id"], ours["task"], ours["correct"], ours["mrr"]) == ("a", "geo", True, 0.5)
    assert ours["comprehensiveness_column"] > 1.0, "taking France away costs logits"
    path.write_text(path.read_text() + json.dumps(line | {"id": "c", "split": "tuning"}) + "\n")
    refused = run(*words)
    assert refused.code == 3
    assert "line 3" in refused.err
    assert "tuning and in the report set" in refused.err


def test_the_quick_form_runs_every_suite_to_the_report(tmp_path: Path) -> None:
    found = ok("eval", "--quick", "--jobs", 2, "-o", tmp_path, "--json").json
    assert found["cases"] == {"chase": 10, "circuits": 6, "prompts": 2, "held_out": 2, "reasoning": 2, "commonsense": 2}
    ours, chance = (of(found["rows"], method) for method in ("secant.drive", "random"))
    known_drivers = [row for row in ours if row["suite"] in ("chase", "circuits")]
    assert all(row["top1"] == row["chain"] == 1.0 for row in known_drivers)
    gained = [
        one["comprehensiveness_column"] - other["comprehensiveness_column"]
        for one, other in zip(ours, chance, strict=True)
        if one["suite"] in ("prompts", "held_out", "reasoning", "commonsense")
    ]
    assert len(gained) == 8
    assert sum(gained) > 0, "tokens taken away in a random order cost as much"
    assert {row["order"] for row in found["steps"]} == {"supports", "signed score", "nearest first", "random"}
    report = (tmp_path / "report.md").read_text()
    assert all(f"## Suite `{name}`" in report for name in found["cases"])
    assert "## Step graph against the person's proof (2 chains)" in report
    assert (tmp_path / "step-graph.png").read_bytes().startswith(b"\x89PNG")
    page = html.unescape((tmp_path / "beside-human-reasoning.html").read_text())
    chains = [item for item in suite_items(SUITES["commonsense"], "report") if item.proof]
    assert [(item.item.rationale or "?") in page for item in chains[:3]] == [True, True, False]
