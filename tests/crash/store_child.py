"""A process that is made to be killed: it loads, attaches, deletes, replaces and rebuilds at random, telling each step before and after.
Half of them copy in one transaction, half in many, as large batches are.

`python -m tests.crash.store_child ARCHIVE STORE SEED`; lines of JSON on stdout.
"""

from __future__ import annotations

import json
import random
import sys
import threading

from tracestore.archive import Archive
from tracestore.load import attach_output, load_archive, rebuild_store
from tracestore.store import open_engine
from tracestore.store.base import Limits, LoadLevel, Store, TraceBundle
from tracestore.store.ladybug import ingest

LEVELS: tuple[LoadLevel, ...] = ("summary", "mechanism")


def tell(**event: object) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def read_on(store: Store, stop: threading.Event) -> None:
    """Query all the time, so that checkpoints happen beside readers."""
    while not stop.is_set():
        store.run("MATCH (t:Trace)<-[:OF]-(o:Output) WHERE t.ready_id IS NOT NULL RETURN count(*) AS found", {}, Limits())


def step(archive: Archive, store: Store, dice: random.Random, outputs: list[str]) -> None:
    """Do one thing at random."""
    ids = list(archive.trace_ids())
    kind = dice.choice(["load", "load", "load", "attach", "attach", "evict", "replace"])
    if kind == "load":
        chosen = dice.sample(ids, 5)
        level = dice.choice(LEVELS)
        tell(begin="load", ids=chosen)
        tell(done="load", ids=list(load_archive(archive, store, level=level, only=chosen).loaded))
    elif kind == "attach":
        there = [name for name in outputs if name.split(":", 1)[0] in store.ready()]
        if there:
            name = dice.choice(there)
            tell(begin="attach", output=name)
            attach_output(archive, store, name)
            tell(done="attach", output=name)
    elif kind == "evict":
        chosen = dice.sample(ids, 2)
        tell(begin="evict", ids=chosen)
        store.evict(chosen)
        tell(done="evict", ids=chosen)
    else:
        chosen = dice.sample(ids, 3)
        tell(begin="replace", ids=chosen)
        for package in archive.packages():
            for part in archive.bundles(package, trace_ids=chosen):
                if part.trace_ids:
                    store.load(TraceBundle(part.trace_ids, part.tables), level="mechanism", replace=True)
        tell(done="replace", ids=chosen)


def main() -> None:
    archive, url, dice = Archive(sys.argv[1]), sys.argv[2], random.Random(int(sys.argv[3]))
    outputs = [output.output_id for trace in archive.read_traces() for output in trace.outputs]
    if dice.random() < 0.5:
        ingest.OWN_STATEMENT_ROWS = 0  # as for large batches: every table of edges is copied on its own
    tell(begin="open")
    while True:
        if dice.random() < 0.25:
            tell(begin="rebuild")
            rebuild_store(archive, url, level=dice.choice(LEVELS))
            tell(done="rebuild")
        with open_engine(url) as store:
            stop = threading.Event()
            reader = threading.Thread(target=read_on, args=(store, stop), daemon=True)
            reader.start()
            for _ in range(5):
                step(archive, store, dice, outputs)
            stop.set()
            reader.join()


if __name__ == "__main__":
    main()
