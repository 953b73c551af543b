"""A thread in the background: one engine thread, a lower priority, and nobody else is touched."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from tracestore.store.background import engine_threads, in_background


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has a priority of its own on Linux only")
def test_the_thread_alone_goes_into_the_background() -> None:
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    found: list[tuple[int, int]] = []

    def work() -> None:
        in_background()
        in_background()  # once more does no harm
        found.append((engine_threads(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(1, max(before, 15))]
    assert (engine_threads(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())) == (0, before)
