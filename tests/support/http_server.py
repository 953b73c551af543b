"""Run `tracestore serve` in a process of its own and wait for its address."""

from __future__ import annotations

import re
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
    process = start("serve", "--port", 0, *arguments)
    assert process.stderr is not None
    assert process.stdout is not None
    try:
        said = process.stderr.readline()
        found = re.search(r"http://\S+(?=/ )", said)
        assert found, said + process.stderr.read()
        yield Served(found.group(), process)
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
