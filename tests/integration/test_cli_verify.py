"""`tracestore verify` as a user runs it: one output, all of them, exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import ok, run
from tests.support.tiny_text_model import save_tiny
from tracestore.archive import Archive


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def archive(model: Path, tmp_path: Path) -> Path:
    ok("trace", "The capital of France is", "--model", model, "--archive", tmp_path / "traces")
    return tmp_path / "traces"


def output_in(archive: Path) -> str:
    (trace,) = Archive(archive).read_traces()
    return trace.outputs[0].output_id


def test_one_output_is_verified_and_then_known(model: Path, archive: Path) -> None:
    output = output_in(archive)
    first = ok("verify", output, "--model", model, "--archive", archive, "--top", 3, "--random", 1, "--json")
    (found,) = first.json["outputs"]
    assert found["output_id"] == output
    assert [k["random"] for k in found["knockouts"]] == [False, False, False, True]
    assert first.json["measured"] == 4
    assert found["agree"] == sum(k["estimate"] * k["effect"] < 0 for k in found["knockouts"])
    assert "4 measured, 0 known before" in first.err
    again = ok("verify", "--all-outputs", "--model", model, "--archive", archive, "--top", 3)
    assert "0 measured, 3 known before" in again.err
    for part in (output, "estimate", "effect", "agrees", "known before"):
        assert part in again.out


def test_why_says_whether_the_model_agrees(model: Path, archive: Path, tmp_path: Path) -> None:
    output = output_in(archive)
    before = ok("why", "--output", output, "--archive", archive)
    assert "knockouts:" not in before.out
    assert "without it" not in before.out
    done = ok("verify", output, "--model", model, "--archive", archive, "--top", 3, "--json").json["outputs"][0]
    ok("load", "--archive", archive, "--store", tmp_path / "graph.lbug")
    for place in (("--archive", archive), ("--store", tmp_path / "graph.lbug")):
        (found,) = ok("why", "--output", output, *place, "--json").json["outputs"]
        assert found["knockouts"] == {"tried": 3, "agree": done["agree"]}
        shown = ok("why", "--output", output, *place).out
        assert "knockouts: 3 sources were removed on the model" in shown
        assert "without it" in shown
        assert f"{done['knockouts'][0]['effect']:.4g}" in shown


def test_a_named_source_and_an_empty_kind(model: Path, archive: Path) -> None:
    given = ("verify", output_in(archive), "--model", model, "--archive", archive)
    assert [k["source"] for k in ok(*given, "--kind", "head", "--source", "l1.h2", "--json").json["outputs"][0]["knockouts"]] == ["L1.H2"]
    assert "nothing of kind span can be removed" in ok(*given, "--kind", "span").out


def test_bad_input_leaves_with_three_and_usage_with_two(model: Path, archive: Path, tmp_path: Path) -> None:
    output = output_in(archive)
    other = save_tiny(tmp_path / "other", seed=5)
    given = ("verify", output, "--archive", archive)
    changed = run(*given, "--model", other)
    assert (changed.code, "fingerprint" in changed.err) == (3, True)
    assert run(*given, "--model", model, "--source", "99").code == 3
    assert run("verify", f"{output}0", "--model", model, "--archive", archive).code == 3
    assert run("verify", "--model", model, "--archive", archive).code == 2
    assert run(*given, "--model", model, "--all-outputs").code == 2
    assert run(*given, "--model", model, "--top", 0).code == 3
    assert Archive(archive).annotations() == ()
