"""Work that must not get in the way of another thread: `in_background()` at the start of a thread, and engines keep to it.

Two threads that compute on two cores and a third that loads: each parallel step of the computation waits for the slower of its two
threads, so loading at equal rights costs far more than the time it takes. In the background it takes what the computation leaves idle.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from contextvars import ContextVar
from typing import Final

_NICE: Final = 15
"""Lowest priorities are 19; the priority is that of the thread alone, on Linux."""

_IN_BACKGROUND: Final[ContextVar[bool]] = ContextVar("in_background", default=False)


def in_background() -> None:
    """Put the calling thread into the background for good: one engine thread, and a lower priority where one thread can have its own."""
    _IN_BACKGROUND.set(True)
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):  # not allowed here: it works without
            os.setpriority(os.PRIO_PROCESS, thread, max(_NICE, os.getpriority(os.PRIO_PROCESS, thread)))


def engine_threads() -> int:
    """Say how many threads an engine inside this process may use for the calling thread; 0: as many as it likes."""
    return 1 if _IN_BACKGROUND.get() else 0
