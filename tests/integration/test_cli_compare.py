"""`compare` and `assert` on a model saved along its training: archives and stores, text and JSON, exit codes, JUnit."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.command_line import run
from tests.support.small_chase import SMALL_TASK
from tracestore.archive import Archive
from tracestore.evaluate.suites.pointer_chase_model import TrainedChase
from tracestore.extract.loading import load_model
from tracestore.extract.trace import trace
from tracestore.model import Item


@pytest.fixture(scope="module")
def archives(chase: TrainedChase, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """One archive for each of two checkpoints, and one (key 0) with both."""
    root = tmp_path_factory.mktemp("compare")
    early, late = chase.checkpoints[1], chase.final
    both = Archive(root / "both")
    for checkpoint in (early, late):
        loaded = load_model(checkpoint.folder)
        traces = [trace(loaded, Item(prompt=item.prompt, id=item.id)) for item in SMALL_TASK.items(4, seed=3)]
        Archive(root / str(checkpoint.step)).write(traces)
        both.write(traces)
    return {early.step: root / str(early.step), late.step: root / str(late.step), 0: root / "both"}


def test_two_checkpoints_of_one_archive(archives: dict[int, Path], chase: TrainedChase) -> None:
    early, late = (str(checkpoint.folder) for checkpoint in (chase.checkpoints[1], chase.final))
    found = json.loads(run("compare", f"{early}@30", f"{late}@150", "--archive", str(archives[0]), "--json").out)
    assert found["pairs"] == 4
    assert 0 < found["token_shift"] <= 1
    assert {row["change"] for row in found["heads"]} <= {"gained", "lost", "kept"}
    shown = run("compare", early, late, "--archive", str(archives[0]))
    assert shown.code == 0
    assert "token_shift" in shown.out


def test_two_traces_of_a_store(archives: dict[int, Path], tmp_path: Path) -> None:
    store = str(tmp_path / "graph.lbug")
    assert run("load", "--archive", str(archives[0]), "--store", store).code == 0
    first, second = Archive(archives[0]).trace_ids()[:2]
    by_store = json.loads(run("compare", first, second, "--store", store, "--json").out)
    by_archive = json.loads(run("compare", first, second, "--archive", str(archives[0]), "--json").out)
    assert by_store["token_shift"] == pytest.approx(by_archive["token_shift"])
    assert [row["name"] for row in by_store["heads"]] == [row["name"] for row in by_archive["heads"]]


def test_what_the_command_line_names_outranks_the_environment(
    archives: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = str(tmp_path / "graph.lbug")
    assert run("load", "--archive", str(archives[0]), "--store", store).code == 0
    first, second = Archive(archives[0]).trace_ids()[:2]
    monkeypatch.setenv("TRACESTORE_ARCHIVE", str(tmp_path / "missing"))
    compared = run("compare", first, second, "--store", store, "--json")
    assert compared.code == 0, compared.err
    why = run("why", "--trace", first, "--store", store, "--json")
    assert why.code == 0, why.err
    assert json.loads(why.out)["trace_id"] == first
    assert run("why", "--trace", first).code == 3  # here the variable is what counts
    both = run("compare", first, second, "--store", store, "--archive", str(archives[0]))
    assert "one of the two" in both.err


def test_the_same_run_passes_and_another_model_is_reported(archives: dict[int, Path], tmp_path: Path) -> None:
    same = run("assert", "--baseline", str(archives[150]), "--candidate", str(archives[150]), "--json")
    assert same.code == 0
    assert json.loads(same.out)["ok"] == 4
    junit = tmp_path / "report.xml"
    other = run("assert", "--baseline", str(archives[150]), "--candidate", str(archives[30]), "--junit", str(junit))
    report = ElementTree.fromstring(junit.read_text())
    assert int(report.attrib["tests"]) == 4
    assert int(report.attrib["failures"]) + int(report.attrib["skipped"]) > 0
    assert other.code == (7 if int(report.attrib["failures"]) else 0)


def test_a_shift_fails_with_exit_code_7(archives: dict[int, Path], tmp_path: Path) -> None:
    """The baseline's own answers, with driving tokens laid differently: what a test must notice."""
    from tests.conformance.conftest import with_column

    shifted = Archive(tmp_path / "shifted")
    for found in Archive(archives[150]).read_traces():
        shares = found.table("INFLUENCES.Token.Output")["share"].to_pylist()
        shifted.write([with_column(found, "INFLUENCES.Token.Output", "share", [shares[0], *reversed(shares[1:])])])
    result = run("assert", "--baseline", str(archives[150]), "--candidate", str(tmp_path / "shifted"))
    assert result.code == 7
    assert "of the token shares moved" in result.out
    assert "same answer by another mechanism" in result.err
    lenient = ("--max-token-shift", "1", "--max-head-shift", "1")
    assert run("assert", "--baseline", str(archives[150]), "--candidate", str(tmp_path / "shifted"), *lenient).code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("assert", "--baseline", "{150}", "--candidate", "missing"), 3, "neither an archive nor a store at missing"),
        (("assert", "--baseline", "{150}", "--candidate", "{0}"), 3, "two traces of one prompt"),
        (("assert", "--baseline", "{150}", "--candidate", "{150}", "--candidate-model", "nobody"), 3, "nothing matches"),
        (("assert", "--baseline", "{150}", "--candidate", "{150}", "--max-head-shift", "2"), 2, "max-head-shift"),
        (("compare", "a", "b"), 2, "--archive or --store"),
        (("compare", "a", "b", "--archive", "{150}"), 3, "nothing matches"),
    ],
)
def test_what_cannot_be_compared_is_said(archives: dict[int, Path], arguments: tuple[str, ...], code: int, words: str) -> None:
    filled = [part.replace("{150}", str(archives[150])).replace("{0}", str(archives[0])) for part in arguments]
    result = run(*filled)
    assert result.code == code
    assert words in result.err
