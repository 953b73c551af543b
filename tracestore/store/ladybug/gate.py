"""A gate between reading and committing in one process.

A read transaction that is open while another connection commits keeps the engine from cutting its log at the checkpoint; when the process
then dies, the log is applied a second time on the next opening, which has failed on duplicate keys (and crashed). So commits wait until
no read is open, and reads that come meanwhile wait for the commit. Readers in other processes do not have that effect.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Any number of readers, or one commit; a commit that waits holds back new readers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._committing = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read in this block. A thread must not commit inside it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._committing)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Commit in this block: nobody reads."""
        with self._changed:
            self._changed.wait_for(lambda: not self._committing)
            self._committing = True
            self._changed.wait_for(lambda: self._readers == 0)
        try:
            yield
        finally:
            with self._changed:
                self._committing = False
                self._changed.notify_all()
