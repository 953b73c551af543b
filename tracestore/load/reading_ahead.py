"""Reading in a thread of its own while something else is done with what was read: bounded, so that a slow taker holds the reader up."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Final, TypeVar

T = TypeVar("T")
_END: Final = object()


def read_ahead(source: Iterable[T], room: int) -> Generator[T, None, None]:
    """Give the elements of `source`; at most `room` of them were read and wait at any time. With 0 there is no thread.

    An error of the source is raised where its element would have come. Close the iterator (or exhaust it) to end the thread.
    """
    if room == 0:
        yield from source
        return
    free = threading.Semaphore(room)
    ready: queue.SimpleQueue[object] = queue.SimpleQueue()
    failed: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            free.acquire()  # before the first element is read, not after
            for element in source:
                if stop.is_set():
                    break
                ready.put(element)
                del element
                free.acquire()
                if stop.is_set():
                    break
        except BaseException as error:  # noqa: BLE001  raised again where the elements are taken
            failed.append(error)
        ready.put(_END)

    reader = threading.Thread(target=read, name="tracestore-reader", daemon=True)
    reader.start()
    try:
        while (element := ready.get()) is not _END:
            free.release()
            yield element  # type: ignore[misc]  # what came from the source
            del element
        if failed:
            raise failed[0]
    finally:
        stop.set()
        free.release()
        reader.join()
