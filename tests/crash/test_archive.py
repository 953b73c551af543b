"""Kill writers, compactions and forgetting at random moments: nothing that was said to be kept is lost, partial or double.

TRACESTORE_CRASH_KILLS sets the number of kills (10 by default; 50 is the long form).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.archive_worker import LIMIT, small_trace
from tests.support.archives import assert_same_trace
from tracestore.archive import Archive

KILLS = int(os.environ.get("TRACESTORE_CRASH_KILLS", "10"))
ROOT = Path(__file__).parents[2]
ACTIONS = ("write", "compact", "forget")
SEEDS = 1_000


def _start(action: str, archive: Path, first: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.crash.archive_worker", action, str(archive), str(first)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _stop(process: subprocess.Popen[str], seconds: float, number: signal.Signals) -> tuple[set[str], set[str], str]:
    """Let it work for a while, stop it, and give what it said was kept and forgotten, and its last words."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    said: dict[str, set[str]] = {"kept": set(), "forgotten": set()}
    for line in output.splitlines():
        if output.endswith("\n") or line != output.splitlines()[-1]:
            word, *names = line.split()
            said[word].update(names)
    return said["kept"], said["forgotten"], errors


def _check(path: Path, kept: set[str], forgotten: set[str], first: int) -> Archive:
    archive = Archive(path, create=False)
    assert archive.problems() == ()
    ids = archive.trace_ids()
    assert len(ids) == len(set(ids))
    assert kept - forgotten - archive.forgotten() <= set(ids)
    assert forgotten <= archive.forgotten()
    assert not forgotten & set(ids)
    made = {trace.trace_id: trace for trace in map(small_trace, range(first, first + LIMIT))}
    for trace in archive.read_traces():
        if trace.trace_id in made:
            assert_same_trace(trace, made[trace.trace_id])
    return archive


@pytest.mark.parametrize("action", ACTIONS)
def test_kill_at_random_moments_loses_nothing(tmp_path: Path, action: str) -> None:
    rng = random.Random(f"{action} {KILLS}")
    path = tmp_path / "archive"
    kept: set[str] = set()
    forgotten: set[str] = set()
    for kill in range(KILLS // len(ACTIONS) + (ACTIONS.index(action) < KILLS % len(ACTIONS))):
        process = _start(action, path, kill * SEEDS)
        more, gone, _ = _stop(process, rng.uniform(0.0, 0.5), signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        kept, forgotten = kept | more, forgotten | gone
        _check(path, kept, forgotten, kill * SEEDS)
    archive = Archive(path, create=False)
    before = set(archive.trace_ids())
    assert archive.compact().problems == ()
    assert set(archive.trace_ids()) == before
    report = archive.verify()
    assert (report.problems, report.notes) == ((), ())
    assert not any(name.startswith(".") for folder in ("packages", "tombstones") for name in os.listdir(path / folder))


def test_ctrl_c_keeps_every_added_trace(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    process = _start("write", path, 0)
    kept, _, errors = _stop(process, 0.2, signal.SIGINT)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    archive = _check(path, kept, set(), 0)
    assert archive.verify().problems == ()
    assert set(archive.trace_ids()) == {small_trace(seed).trace_id for seed in range(len(archive))}
    assert archive.verify().notes == ()


def test_writers_in_several_processes_share_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    processes = [_start("write", path, first) for first in (0, SEEDS, 0)]  # the third makes the first one's traces again
    said = [_stop(process, 0.3, signal.SIGINT) for process in processes]
    kept = set().union(*(one[0] for one in said))
    archive = _check(path, kept, set(), 0)
    names = [package.package_id for package in archive.packages()]
    assert len(names) == len(set(names))
    assert archive.compact().problems == ()
    assert archive.verify().notes == ()
    assert kept <= set(archive.trace_ids())
