"""Runs `tracestore` commands in forked children, so that torch is imported once: a JSON list of arguments a line on stdin.

Answers on stdout, a line each: the child's process id, a dot for every item that it has dealt with, `{"status": ...}` when it ended (a
negative number for a signal). The child's stderr goes to the file named by the first argument.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import tracestore.api
import tracestore.extract.trace
import tracestore.load
import tracestore.store.ladybug.store  # noqa: F401  imported before the fork
from tracestore.cli import app
from tracestore.ingest import runner


def tell_every_item() -> None:
    """Have the runner write a dot after each item."""
    handle = runner._Run.handle

    def told(self: runner._Run, entry: object) -> None:
        handle(self, entry)  # type: ignore[arg-type]
        os.write(1, b".\n")

    runner._Run.handle = told  # type: ignore[method-assign]


def child(arguments: list[str], errors: str) -> None:
    """Run one command and leave with its code; never returns."""
    code = 1
    try:
        os.dup2(os.open(errors, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), 2)
        app(arguments, prog_name="tracestore")
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command is over: what comes now is not its to answer
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Serve until stdin ends."""
    tell_every_item()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(json.loads(line), sys.argv[1])
        os.write(1, f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(1, json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


if __name__ == "__main__":
    main()
