"""Run `tracestore serve` in a process of its own and wait for its address."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.command_line import start


@dataclass(frozen=True, slots=True)
class Served:
    """A server that answers: its address without the slash at the end, and its process."""

    url: str
    process: subprocess.Popen[str]


@contextmanager
def serving(*arguments: object) -> Iterator[Served]:
    """Serve on a free port; end it as Ctrl-C does, and assert that it ended well."""
    process = start("serve", "--port", 0, "--json", *arguments)
    assert process.stderr is not None
    assert process.stdout is not None
    try:
        said = "".join(process.stdout.readline() for _ in range(3))  # one JSON object
        assert said, process.stderr.read()
        yield Served(json.loads(said)["url"].rstrip("/"), process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stderr.close()
        process.stdout.close()
    assert process.returncode == 0
