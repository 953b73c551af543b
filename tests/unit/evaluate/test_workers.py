"""Several processes give what one gives, in the same order; a cut run goes on; workers end with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.tiny_text_model import tiny_loaded
from tracestore.errors import BadInputError, ResourceError
from tracestore.evaluate.annotated import Annotated
from tracestore.evaluate.runner import RunSettings, evaluate_item, read_lines, run_items
from tracestore.evaluate.suites import registry
from tracestore.evaluate.workers import Workers
from tracestore.extract.loading import LoadedModel

NAMES = ("secant.direct", "random", "leave_one_out")
SETTINGS = RunSettings("prompts", "tiny", NAMES, True, "report")
MAKE = partial(evaluate_item, settings=SETTINGS)


@pytest.fixture(scope="module")
def items() -> list[Annotated]:
    chosen = [item for item in registry.suite_items(registry.SUITES["prompts"], "report") if len(item.item.prompt or "") < 60]
    return chosen[:5]


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def without_time(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "forwards"} for row in rows]


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one_and_a_cut_run_goes_on(items: list[Annotated], tmp_path: Path, one_thread: None) -> None:
    with Workers(tiny_loaded) as workers:
        expected = run_items(items, MAKE, SETTINGS, tmp_path / "one.jsonl", workers)
    assert [row["id"] for row in expected] == [item.id for item in items for _ in NAMES]
    path, done = tmp_path / "two.jsonl", []
    with Workers(tiny_loaded, 2) as workers:
        run_items(items[3:], MAKE, SETTINGS, path, workers)
        with path.open("a") as file:
            file.write('{"settings": "cut o')
        rows = run_items(items, MAKE, SETTINGS, path, workers, progress=lambda: done.append(1))
    assert len(done) == 3, "only what was missing is made"
    assert len(path.read_text().splitlines()) == len(items)
    assert without_time(rows) == without_time(expected)
    assert all(row["forwards"] > 0 for row in rows if row["method"] == "secant.direct")


def test_rows_are_in_the_order_of_the_suite_whatever_the_order_of_the_lines(items: list[Annotated], tmp_path: Path) -> None:
    settings = RunSettings("prompts", "tiny", ("random",), False)
    make = partial(evaluate_item, settings=settings)
    with Workers(tiny_loaded) as workers:
        for some in (items[2:3], items[:1], items[1:2]):
            run_items(some, make, settings, tmp_path / "rows.jsonl", workers)
        rows = run_items(items, make, settings, tmp_path / "rows.jsonl", workers, limit=0)
    assert [line.id for line in read_lines(tmp_path / "rows.jsonl", settings)] == [items[at].id for at in (2, 0, 1)]
    assert [row["id"] for row in rows] == [item.id for item in items[:3]]


def refuse(_loaded: LoadedModel, item: str) -> str:
    raise BadInputError(f"no {item}")


def end_itself(_loaded: LoadedModel, _item: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_what_goes_wrong_in_a_worker_is_raised() -> None:
    with Workers(tiny_loaded, 2) as workers:
        with pytest.raises(BadInputError, match="no tea"):
            list(workers.each(refuse, ["tea", "tea", "tea"]))
        with pytest.raises(ResourceError, match="fewer --jobs"):
            list(workers.each(end_itself, ["tea"]))


_PARENT = """
import os
import sys
import time
from pathlib import Path

from tracestore.evaluate.workers import Workers


def nothing():
    return None


def tell_and_wait(_loaded, folder):
    (folder / f"{os.getpid()}.pid").touch()
    time.sleep(600)


if __name__ == "__main__":
    with Workers(nothing, 2) as workers:
        list(workers.each(tell_and_wait, [Path(sys.argv[1])] * 3))
"""


@pytest.mark.slow
def test_workers_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment)
    try:
        pids = _within(400, lambda: found if len(found := [int(p.stem) for p in tmp_path.glob("*.pid")]) == 2 else None)
        os.kill(parent.pid, signal.SIGKILL)
    finally:
        parent.kill()
        parent.wait()
    _within(60, lambda: not any(_runs(pid) for pid in pids))


def _within(seconds: float, found: Any) -> Any:
    until = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.1)
    return value


def _runs(pid: int) -> bool:
    """Does the process run? (One that ended and was not waited for yet does not.)"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
