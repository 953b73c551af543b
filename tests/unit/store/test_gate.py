"""Reads and commits of one process do not overlap."""

from __future__ import annotations

import threading

from tracestore.store.ladybug.gate import Gate


def test_a_commit_waits_for_the_read_and_holds_back_the_next_one() -> None:
    gate, order = Gate(), []
    reading, finish = threading.Event(), threading.Event()

    def first() -> None:
        with gate.reading():
            reading.set()
            finish.wait(10)
            order.append("first read ends")

    def commit() -> None:
        with gate.committing():
            order.append("commit")

    def second() -> None:
        with gate.reading():
            order.append("second read")

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert reading.wait(10)
    for action, waiting in ((commit, "_committing"), (second, "")):
        threads.append(threading.Thread(target=action))
        threads[-1].start()
        for _ in range(10_000 if waiting else 0):  # until it waits, ten seconds at most
            if getattr(gate, waiting):
                break
            threading.Event().wait(0.001)
    finish.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first read ends", "commit", "second read"]
