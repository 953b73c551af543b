"""Progress: nothing for short work, plain lines where stderr is no terminal."""

from __future__ import annotations

import pytest

from tracestore.cli import _progress
from tracestore.cli._progress import progress, rate_text


class Clock:
    """A clock that is moved by hand."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(_progress, "time", made)
    return made


def test_short_work_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("tracing", "items", 3) as reporter:
        reporter.advance()
        clock.now += 0.9
        reporter.advance(2)
    assert capsys.readouterr().err == ""


def test_long_work_says_a_line_every_few_seconds_and_one_at_the_end(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("loading", "edges", 400) as reporter:
        for _ in range(4):
            clock.now += 3
            reporter.advance(100)
    assert capsys.readouterr().err.splitlines() == [
        "loading: 200 of 400 edges, 33.3/s, 6 s left",
        "loading: 400 of 400 edges, 33.3/s",
        "loading: 400 of 400 edges, 33.3/s",
    ]


def test_stdout_is_left_to_the_data(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("tracing", "items") as reporter:
        clock.now += 60
        reporter.advance(5)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "5 items" in captured.err


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    [
        (0, 10, 0.0, "0 of 10 items"),
        (5, 10, 10.0, "5 of 10 items, 0.5/s, 10 s left"),
        (5000, None, 10.0, "5,000 items, 500/s"),
        (10, 10, 1.0, "10 of 10 items, 10.0/s"),
    ],
)
def test_rate(done: int, total: int | None, seconds: float, text: str) -> None:
    assert rate_text(done, total, seconds, "items") == text
