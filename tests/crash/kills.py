"""Kill a child that works on a store, and compare what it said, what the store holds and what the archive holds."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.store_graph import ask, differences, expected_graph, stored_graph, without_appended
from tracestore.archive import Archive
from tracestore.errors import StoreUnavailableError, StoreVersionError
from tracestore.store import open_engine

ROOT = Path(__file__).parents[2]


class Ledger:
    """What the child said: ids that must be READY or EVICTED, outputs that must have their mechanism, ids that may be in either state."""

    def __init__(self) -> None:
        self.ready: set[str] = set()
        self.evicted: set[str] = set()
        self.attached: set[str] = set()
        self.open: set[str] = set()
        self.rebuilding = False

    def tell(self, event: dict[str, Any]) -> None:
        if "begin" in event:
            self.rebuilding = event["begin"] == "rebuild"
            self.open |= set(event.get("ids", ()))
            return
        ids = set(event.get("ids", ()))
        self.open.clear()
        if event["done"] in ("load", "replace"):
            self.ready |= ids
            self.evicted -= ids
        elif event["done"] == "evict":
            self.ready -= ids
            self.evicted |= ids
        elif event["done"] == "attach":
            self.attached.add(event["output"])
        else:
            self.attached.clear()  # a rebuild takes the level it was asked for
        self.rebuilding = False
        self.attached = {name for name in self.attached if name.split(":", 1)[0] not in ids}


def run_and_kill(
    archive: Path,
    store: str | Path,
    seed: int,
    dice: random.Random,
    ledger: Ledger,
    *,
    module: str = "tests.crash.store_child",
    environment: Mapping[str, str] | None = None,
    longest_wait_s: float = 0.4,
) -> None:
    """Start the child, kill it a random while after a random step began, take note of what it said."""
    command = [sys.executable, "-m", module, str(archive), str(store), str(seed)]
    given = {**os.environ, **(environment or {})}
    with subprocess.Popen(command, cwd=ROOT, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        lines: list[str] = []
        begun, last = 0, dice.randint(1, 5)
        while begun < last:
            lines.append(child.stdout.readline())
            assert lines[-1], child.stderr.read()
            begun += '"begin"' in lines[-1]
        try:
            child.wait(timeout=dice.uniform(0.0, longest_wait_s))
        except subprocess.TimeoutExpired:
            child.kill()
        lines += child.stdout.read().splitlines()
        errors = child.stderr.read()
    assert child.returncode == -9, f"the child ended by itself ({child.returncode}): {errors}"
    for line in lines:
        if line.rstrip().endswith("}"):  # the last one may be torn
            ledger.tell(json.loads(line))


def assert_a_reader_can_open(url: str, ledger: Ledger) -> None:
    """Open for reading first: a reader must not depend on somebody opening for writing after a crash."""
    try:
        with open_engine(url, read_only=True) as store:
            ready = store.ready()
    except (StoreUnavailableError, StoreVersionError):
        assert not ledger.ready, "killed before the store was made, and yet something was reported loaded"
        return
    assert ledger.rebuilding or ledger.ready - ledger.open <= ready


def assert_sound(archive: Archive, url: str, ledger: Ledger, highest: int) -> int:
    """Open after a kill and compare with the archive; give the highest trace number seen so far."""
    assert_a_reader_can_open(url, ledger)
    with open_engine(url) as store:
        ready, evicted = store.ready(), store.evicted()
        if not ledger.rebuilding:
            assert ledger.ready - ledger.open <= ready, "a trace that was reported loaded is gone"
        assert ledger.evicted - ledger.open <= evicted, "a trace that was deleted is back"
        assert store.check().problems == ()
        assert ask(store, "MATCH (w:StoreWork) RETURN w.id AS id") == []
        with_mechanism = {row["id"] for row in ask(store, "MATCH (o:Output) WHERE o.mechanism RETURN o.output_id AS id")}
        if not ledger.rebuilding:
            kept = {name for name in ledger.attached if name.split(":", 1)[0] not in ledger.open}
            assert kept <= with_mechanism, "a mechanism that was reported attached is gone"
        expected = expected_graph([archive.read_trace(name) for name in ready], with_mechanism)
        assert differences(without_appended(stored_graph(store)), without_appended(expected)) == []
        numbers = [row["no"] for row in ask(store, "MATCH (r:StoreTrace) RETURN r.trace_no AS no")]
        counter = ask(store, "MATCH (c:StoreCounter {name: 'trace_no'}) RETURN c.value AS value")
        assert max(numbers, default=0) <= (counter[0]["value"] if counter else 0)
        assert counter == [] or counter[0]["value"] >= highest, "trace numbers went back"
        ledger.ready, ledger.evicted, ledger.attached = set(ready), set(evicted), set(with_mechanism)
        ledger.open.clear()
        return int(counter[0]["value"]) if counter else 0
