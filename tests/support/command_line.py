"""Run the command line in this process, as `tracestore ...` would, and look at what it wrote."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracestore.cli import app

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Finished:
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as JSON."""
        return json.loads(self.out)


class _Captured(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    @property
    def text(self) -> str:
        self.flush()
        return bytes(self.buffer.getvalue()).decode("utf-8", "replace")  # type: ignore[attr-defined]


def run(*arguments: object) -> Finished:
    """Run one command in this process."""
    out, err = _Captured(), _Captured()
    code = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            app([str(argument) for argument in arguments], prog_name="tracestore")
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1 if leaving.code else 0
    return Finished(code, out.text, err.text)


def ok(*arguments: object) -> Finished:
    """Run one command that must succeed."""
    done = run(*arguments)
    assert done.code == 0, f"{arguments[0]} left with {done.code}:\n{done.out}\n{done.err}"
    return done


def start(*arguments: object, **more: Any) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tracestore", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **more)
