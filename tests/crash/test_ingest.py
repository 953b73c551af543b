"""kill -9 and Ctrl-C at random moments of `trace` and `ingest`: the next run makes exactly what is missing, nothing is lost or double.

TRACESTORE_CRASH_KILLS sets the number of interruptions (4 by default; 50 is the long form).
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_text_model import save_tiny
from tracestore.api import open_store
from tracestore.archive import Archive

INTERRUPTIONS = int(os.environ.get("TRACESTORE_CRASH_KILLS", "4"))
ROOT = Path(__file__).parents[2]
ITEMS = 28
SEED = 20_261


class Worker:
    """The process that runs the commands."""

    def __init__(self, errors: Path) -> None:
        self.errors = errors
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.crash.ingest_worker", str(errors)]
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout

    def run(self, arguments: list[str], *, items: int | None = None, seconds: float = 0.0, number: int = signal.SIGKILL) -> int:
        """Run a command; `seconds` after it dealt with `items` items (None: never) send it a signal. Give its exit code."""
        self._in.write(json.dumps(arguments).encode() + b"\n")
        self._in.flush()
        pid = int(self._out.readline())
        dots = 0
        if items == 0:
            self._signal(pid, seconds, number)
        while True:
            line = self._out.readline().strip()
            if line != b".":
                return int(json.loads(line)["status"])
            dots += 1
            if dots == items:
                self._signal(pid, seconds, number)

    def _signal(self, pid: int, seconds: float, number: int) -> None:
        descriptor = os.pidfd_open(pid)
        try:
            select.select([descriptor], [], [], seconds)  # readable when the process has ended
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)

    def close(self) -> None:
        self._in.close()
        self._process.wait(timeout=60)
        self._out.close()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path / "stderr")
    yield made
    made.close()


@pytest.fixture
def job(tmp_path: Path) -> list[str]:
    """A model and items, every fourth of which asks for the trace of the one before."""
    model = save_tiny(tmp_path / "tiny")
    records: list[dict[str, Any]] = []
    for n in range(ITEMS):
        text = f"The capital of France is {n - (n % 4 == 3)} and"
        records.append({"id": f"item-{n}", "prompt": text, "expected": " Paris"})
    items = tmp_path / "items.jsonl"
    items.write_text("".join(json.dumps(record) + "\n" for record in records))
    return ["--items", str(items), "--model", str(model)]


def command(kind: str, job: list[str], folder: Path) -> list[str]:
    where = ["--archive", str(folder / "archive")]
    return [kind, *job, *where, *(["--store", str(folder / "graph.lbug")] if kind == "ingest" else [])]


def contents(folder: Path, *, store: bool) -> dict[str, Any]:
    """Say what archive and store hold, each of them checked."""
    archive = Archive(folder / "archive", create=False)
    report = archive.verify()
    assert report.ok, report.problems
    ids = archive.trace_ids()
    assert len(set(ids)) == len(ids)
    found: dict[str, Any] = {"ids": set(ids), "items": archive.item_keys()}
    if store and (folder / "graph.lbug").exists():
        with open_store(folder / "graph.lbug") as graph:
            checked = graph.check()
            assert checked.problems == ()
            assert graph.engine.ready() <= found["ids"]
            status = graph.status()
            found |= {"ready": graph.engine.ready(), "nodes": dict(status.nodes), "edges": dict(status.edges)}
    return found


@pytest.mark.parametrize("kind", ["trace", "ingest"])
def test_interrupted_at_any_moment_the_next_run_makes_what_is_missing(kind: str, worker: Worker, job: list[str], tmp_path: Path) -> None:
    assert worker.run(command(kind, job, tmp_path / "whole")) == 0, worker.errors.read_text()
    whole = contents(tmp_path / "whole", store=kind == "ingest")
    assert len(whole["ids"]) == ITEMS * 3 // 4
    assert len(whole["items"]) == ITEMS
    dice = random.Random(SEED)
    broken = command(kind, job, tmp_path / "broken")
    (tmp_path / "broken").mkdir()
    kept: set[str] = set()
    codes: set[int] = set()
    for turn in range(max(1, INTERRUPTIONS // 2)):
        number = signal.SIGKILL if turn % 2 == 0 else signal.SIGINT
        # an interrupt before the command has begun is no command's to answer
        items = dice.randint(0 if number == signal.SIGKILL else 1, ITEMS)
        code = worker.run(broken, items=items, seconds=dice.uniform(0, 0.6) if items == ITEMS else 0.0, number=number)
        said = worker.errors.read_text()
        codes.add(code)
        assert code in ((-signal.SIGKILL, 0) if number == signal.SIGKILL else (130, 0)), said
        if code == 130:
            assert "run the same command again" in said
        if (tmp_path / "broken" / "archive" / "packages").exists():
            found = contents(tmp_path / "broken", store=kind == "ingest")
            assert kept <= found["ids"] <= whole["ids"]
            if code == 130:
                assert len(found["ids"]) >= items * 3 // 4  # what was traced was written on the way out
            kept = found["ids"]
    assert codes & {-signal.SIGKILL, 130}, "every run ended before its signal"
    assert worker.run(broken) == 0, worker.errors.read_text()
    assert contents(tmp_path / "broken", store=kind == "ingest") == whole
