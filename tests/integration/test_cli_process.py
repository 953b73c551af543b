"""What only a process of its own shows: `python -m tracestore`, a reader that leaves, a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

from tests.support.command_line import ROOT, start
from tracestore._version import __version__


def test_the_module_runs() -> None:
    process = start("--version")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, f"tracestore {__version__}\n", "")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    process = start("queries", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0
    process.stderr.close()


def test_a_terminal_gets_a_bar_with_rate_and_time_left() -> None:
    code = (
        "from tracestore.cli import _progress\n"
        "_progress.QUIET_SECONDS = 0.0\n"
        "with _progress.progress('tracing', 'items', 4) as reporter:\n"
        "    reporter.advance(1)\n"
        "    reporter.advance(2)\n"
    )
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code], stderr=theirs, env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"}
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 4096):
                shown += chunk
        except OSError:  # the other side is closed
            pass
        assert process.wait(timeout=60) == 0
    os.close(ours)
    assert b"tracing" in shown
    assert b"3 of 4 items" in shown
    assert b"s left" in shown
