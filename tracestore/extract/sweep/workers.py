"""Run the sweep in worker processes, so that a class that hangs or crashes is one line of the report.

1. Each worker process takes names from a pipe, one at a time, and sends outcomes back; it serves many classes (importing costs seconds).
2. A thread per worker waits for the answer; past the time limit, or when the pipe closes, the process is ended and a new one started.
   The limit of a class begins when its worker has said that it is ready: a slow start is no finding about the first class.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Final

from tracestore.extract.sweep.outcome import Outcome, sweep_one

SECONDS: Final = 180.0
START_SECONDS: Final = 600.0
_context: Final = multiprocessing.get_context("spawn")


def _serve(pipe: Connection) -> None:
    """Work in a process of its own until the pipe closes."""
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    pipe.send(None)  # ready
    while True:
        try:
            name = pipe.recv()
        except EOFError:
            return
        pipe.send(sweep_one(name))


class _Worker:
    """One process, restarted when it hangs or dies."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.process: SpawnProcess | None = None
        self.pipe: Connection | None = None

    def ask(self, name: str) -> Outcome:
        """Sweep one class; what goes wrong with the process itself is an outcome too."""
        reason = f"its worker did not start within {START_SECONDS:.0f} s"
        try:
            if self.pipe is None and not self._start():
                self.stop()
                return Outcome(name, "", "failed", reason)
            assert self.pipe is not None
            self.pipe.send(name)
            if self.pipe.poll(self.seconds):
                found: Outcome = self.pipe.recv()
                return found
            reason = f"no answer within {self.seconds:.0f} s"
        except (EOFError, OSError):
            reason = "its process ended"
        self.stop()
        return Outcome(name, "", "failed", reason)

    def _start(self) -> bool:
        """Start the process; tell whether it became ready."""
        self.pipe, theirs = _context.Pipe()
        self.process = _context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        if not self.pipe.poll(START_SECONDS):
            return False
        self.pipe.recv()
        return True

    def stop(self) -> None:
        """End the process."""
        if self.pipe is not None:
            self.pipe.close()
        if self.process is not None:
            self.process.terminate()
            self.process.join()
        self.process = self.pipe = None


def sweep(names: Sequence[str], done: Callable[[Outcome], Any], *, workers: int = 2, seconds: float = SECONDS) -> list[Outcome]:
    """Sweep `names`; `done` hears of every outcome as it comes. Gives them sorted by model_type."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)
    outcomes: list[Outcome] = []
    lock = threading.Lock()

    def run() -> None:
        worker = _Worker(seconds)
        try:
            while True:
                try:
                    name = waiting.get_nowait()
                except queue.Empty:
                    return
                outcome = worker.ask(name)
                with lock:
                    outcomes.append(outcome)
                    done(outcome)
        finally:
            worker.stop()

    threads = [threading.Thread(target=run) for _ in range(max(1, min(workers, len(names))))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(outcomes, key=lambda outcome: outcome.model_type)
