"""Work on items in several processes: each loads the model once and computes with one thread of torch.

A worker ends when the process that started it does, however that happens (a kill included): it waits for that in a thread of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch

from tracestore.errors import ResourceError

if TYPE_CHECKING:
    from tracestore.extract.loading import LoadedModel

T = TypeVar("T")
R = TypeVar("R")

_held: Final[list[LoadedModel]] = []  # the model of this worker process


class Workers:
    """`jobs` processes, started when the first work comes; with one job everything happens in this process, in order.

    With more, `load` and whatever is given to `each` must be things that can be pickled, such as functions of modules and their partials.
    """

    def __init__(self, load: Callable[[], LoadedModel], jobs: int = 1) -> None:
        self.jobs = jobs
        self._load = load
        self._loaded: LoadedModel | None = None
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        """Give itself; leaving the block ends the processes."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        """Drop what has not begun, wait for what has."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def load(self) -> LoadedModel:
        """Give the model in this process, loaded on first use."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def each(self, make: Callable[[LoadedModel, T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
        """Give every item with what `make` makes of it, as they are finished.

        Raises what `make` raises, and ResourceError when a process is ended from outside.
        """
        if self.jobs == 1 or not items:
            for item in items:
                yield item, make(self.load(), item)
            return
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")  # a fork would copy torch's threads half
            self._pool = ProcessPoolExecutor(self.jobs, mp_context=spawn, initializer=_start, initargs=(self._load,))
        begun = {self._pool.submit(_work, make, item): item for item in items}
        try:
            for future in as_completed(begun):
                yield begun.pop(future), future.result()
        except BrokenProcessPool as error:
            raise ResourceError(
                "a worker process could not start or was ended from outside, perhaps for lack of memory: give fewer --jobs; "
                "what was finished is kept"
            ) from error
        finally:
            for future in begun:
                future.cancel()


def _start(load: Callable[[], LoadedModel]) -> None:
    """Prepare a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once and in silence: the parent tells the user
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _held.append(load())


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(make: Callable[[LoadedModel, Any], Any], item: Any) -> Any:
    return make(_held[0], item)
