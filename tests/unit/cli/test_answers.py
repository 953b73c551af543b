"""The headline answer, from a synthetic trace."""

from __future__ import annotations

import pytest

from tests.support.synthetic import make_trace
from tracestore.cli._answers import print_why, ranked, why_json
from tracestore.model import Output


@pytest.fixture
def output() -> Output:
    return make_trace(3, text="The capital of France is", n_outputs=1).outputs[0]


def printed(output: Output, capsys: pytest.CaptureFixture[str], **changes: object) -> str:
    print_why(output.trace, [Output(output.trace, {**output.row, **changes})], k=2, by="drive")
    return capsys.readouterr().out


def test_too_little_kept_is_said_instead_of_guessed(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(output, capsys, attention_kept=0.012)
    assert "not enough kept: the stored edges hold 1.2% of the attention mass, too little to follow them" in text


def test_enough_kept_is_stated(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(output, capsys, attention_kept=0.58)
    assert "kept: 58% of the attention-edge mass" in text
    assert "not enough" not in text


def test_text_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = make_trace(4, text="The \x1b[31mred\x07 capital of", n_outputs=1).outputs[0]
    text = printed(evil, capsys)
    assert "\x1b[31m" not in text
    assert "\x07" not in text


def test_sinks_come_last_whatever_their_size() -> None:
    rows = [{"pos": 0, "sink": True, "score": 9.0}, {"pos": 1, "sink": False, "score": -1.0}, {"pos": 2, "sink": False, "score": 0.5}]
    assert [row["pos"] for row in ranked(rows, "score")] == [1, 2, 0]


def test_by_drive_what_is_driven_against_comes_after_what_does_nothing() -> None:
    rows = [
        {"pos": 0, "sink": True, "drive": 9.0, "score": 0.0},
        {"pos": 1, "sink": False, "drive": -0.5, "score": -3.0},
        {"pos": 2, "sink": False, "drive": 0.0, "score": 0.5},
        {"pos": 3, "sink": False, "drive": 0.2, "score": 0.1},
    ]
    assert [row["pos"] for row in ranked(rows, "drive")] == [3, 2, 1, 0]
    assert [row["pos"] for row in ranked(rows, "score")] == [1, 2, 3, 0]


def test_the_table_shows_drive_first_and_fits_a_hundred_columns(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.rstrip() for line in printed(output, capsys).splitlines()]
    start = lines.index("drivers, by drive")
    (head,) = (line.split() for line in lines[start + 1 : start + 4] if "pos" in line)
    assert head == ["pos", "text", "drive", "score", "direct", "total", "removal", "sink"]
    best = min(output.influences().to_pylist(), key=lambda row: row["rank_drive"])
    first = lines[start + 4]
    assert (first.split()[0], f"{best['drive']:+.1%}" in first) == (str(best["pos"]), True)
    assert max(map(len, lines[start : start + 6])) <= 100


def test_k_limits_the_drivers_and_none_gives_all(output: Output) -> None:
    few = why_json(output.trace, [output], k=2, by="drive")["outputs"][0]
    full = why_json(output.trace, [output], k=None, by="drive")["outputs"][0]
    assert full["drivers"][:2] == few["drivers"]
    assert sum(d["score"] for d in full["drivers"]) + full["bias"] == pytest.approx(full["explained"], abs=1e-5)
