"""What the crash tests kill: writes, compacts or forgets. Run as a program: archive_worker.py ACTION ARCHIVE SEED."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.support.synthetic import make_trace
from tracestore.archive import Archive
from tracestore.model import Trace

LIMIT = 60
"""Traces that one process adds at most, so that the tests' checks stay short."""


def small_trace(seed: int) -> Trace:
    """Make the trace of a seed, as the test makes it again to compare."""
    return make_trace(seed, n_tokens=3, n_layers=1, n_heads=1, mechanism=seed % 2 == 0, items=[{"item_id": f"item-{seed}"}])


def say(*words: object) -> None:
    """Tell the test, at once."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def write(archive: Archive, first: int) -> None:
    """Add traces in packages of three; say each package once it is closed."""
    with archive.writer(max_traces=3) as writer:
        say("ready")
        for seed in range(first, first + LIMIT):
            writer.add(small_trace(seed))
            if writer.pending == 0:
                say("kept", *(name for name in writer.packages[-1].trace_ids))


def compact(archive: Archive, first: int) -> None:
    """Add single traces, some twice, and compact them."""
    say("ready")
    for seed in range(first, first + LIMIT, 3):
        for one in (seed, seed + 1, seed, seed + 2):
            with archive.writer() as writer:
                writer.add(small_trace(one))
            say("kept", small_trace(one).trace_id)
        archive.compact()


def forget(archive: Archive, first: int) -> None:
    """Add two traces, forget one of them, and compact now and then."""
    say("ready")
    for seed in range(first, first + LIMIT, 2):
        archive.write([small_trace(seed), small_trace(seed + 1)])
        say("kept", small_trace(seed + 1).trace_id)
        archive.forget([small_trace(seed).trace_id])
        say("forgotten", small_trace(seed).trace_id)
        if seed % 6 == 0:
            archive.compact()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run that was started in the background inherits its being ignored
    actions = {"write": write, "compact": compact, "forget": forget}
    actions[sys.argv[1]](Archive(Path(sys.argv[2])), int(sys.argv[3]))
    signal.pause()  # done before it was stopped
