"""Loading into a real Neo4j, paired with a bare driver loop that does nothing but UNWIND CREATE: `python -m bench.neo4j`.

The server is a local process of this run (Java and Maven are needed; see docs/neo4j.md), on the same processors as the client. In every
round each side writes the same rows, mechanism level, under fresh ids into the same database; the order is turned round every time, ratios
are taken within a round, and the median of them counts. The database grows to some million edges meanwhile: reads are measured on that.
Then archives of two sizes are loaded by a process of its own each, whose largest resident memory is told.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import count
from pathlib import Path

from bench.load import renamed
from tests.support.store_graph import ask, bundle_of
from tests.support.synthetic import make_trace
from tracestore.archive import Archive
from tracestore.load import load_archive
from tracestore.model import Trace
from tracestore.query import run_named
from tracestore.store import open_engine
from tracestore.store.neo4j.connection import Credentials, make_driver
from tracestore.store.neo4j.local import LocalServer, Running, Sizes
from tracestore.store.neo4j.store import Neo4jStore, open_neo4j
from tracestore.store.neo4j.writing import edge_statement, node_statement, to_rows
from tracestore.store.staging import Staged, stage

BATCH = 10_000
WRITERS = {"one writer": 1, "four writers": 4}
WARM_UP = 200
"""Runs of a query before it is timed: plans are made, the server's compiler has done its work."""

BARE_NUMBERS = 1 << 24
"""Trace numbers of the bare loop: far from those that the store gives out."""


class Source:
    """Traces without end: copies of a few, under fresh ids."""

    def __init__(self) -> None:
        self._made = [make_trace(seed, n_tokens=48, n_layers=8, n_heads=4, n_outputs=2) for seed in range(4)]
        self._numbers = count(1)

    def take(self, traces: int) -> list[Trace]:
        numbers = [next(self._numbers) for _ in range(traces)]
        return [renamed(self._made[number % len(self._made)], number) for number in numbers]


def bare_loop(url: str, who: Credentials, staged: Staged) -> None:
    """Write everything with the driver alone: no lease, no marker, nothing counted, nothing made visible."""
    with make_driver(url, who) as driver, driver.session(database=who.database) as session:
        work = [(node_statement(name), table) for name, table in staged.nodes.items()]
        work += [(edge_statement(name), table) for name, table in staged.edges.items()]
        for statement, table in work:
            for first in range(0, table.num_rows, BATCH):
                session.run(statement, {"rows": to_rows(table.slice(first, BATCH))}).consume()


def write_side(side: str, store: Neo4jStore, who: Credentials, traces: list[Trace], first_number: int) -> float:
    """Write traces in one of the ways; give edges per second."""
    bundle = bundle_of(traces)
    if side == "bare loop":
        staged = stage(bundle, {number: first_number + number for number in range(len(traces))}, "mechanism")
        started = time.perf_counter()
        bare_loop(store.url, who, staged)
        return staged.edge_count / (time.perf_counter() - started)
    started = time.perf_counter()
    report = store.load(bundle, level="mechanism", writers=WRITERS[side])
    assert len(report.loaded) == len(traces)
    return report.edges / (time.perf_counter() - started)


def measure_writing(store: Neo4jStore, who: Credentials, source: Source, traces: int, rounds: int) -> None:
    """Print the rates and their ratios."""
    sides = ["bare loop", *WRITERS]
    rates: dict[str, list[float]] = {side: [] for side in sides}
    bare_number = BARE_NUMBERS
    for turn in range(-1, rounds):  # the first warms the server's compiler and its plans
        for side in sides if turn % 2 else sides[::-1]:
            rate = write_side(side, store, who, source.take(traces), bare_number)
            bare_number += traces
            if turn >= 0:
                rates[side].append(rate)
    load = os.getloadavg()[0]
    print(f"{rounds} rounds of {traces} traces a side; client and server share {os.cpu_count()} processors (load average {load:.1f}).\n")
    print("| side | edges/s, median | spread | against | median of the ratios | spread | aim |\n|---|---|---|---|---|---|---|")
    for side, against, aim in (("bare loop", "", ""), ("one writer", "bare loop", "0.85"), ("four writers", "one writer", "1.3")):
        here = rates[side]
        line = f"| {side} | {statistics.median(here):,.0f} | {min(here):,.0f} - {max(here):,.0f} | {against} "
        if against:
            ratios = [ours / theirs for ours, theirs in zip(here, rates[against], strict=True)]
            print(f"{line}| {statistics.median(ratios):.2f} | {min(ratios):.2f} - {max(ratios):.2f} | {aim} |")
        else:
            print(f"{line}| | | |")


def measure_reading(store: Neo4jStore, repeats: int) -> None:
    """Print the times of each read through the API, on a server that has seen it before."""
    found = ask(store, "MATCH (o:Output)-[:OF]->(t:Trace) WHERE t.ready_id IS NOT NULL RETURN o.output_id AS id, o.text AS text LIMIT 40")
    edges = ask(store, "MATCH ()-[r]->() RETURN count(r) AS found")[0]["found"]
    aims = {"drivers": 10, "drivers_across": 20, "heads_across": 50}
    print(f"\nReads through the API, {edges:,} edges in the database:\n\n| read | median, ms | fastest | aim |\n|---|---|---|---|")
    for name, aim in aims.items():
        times = []
        for turn in range(-WARM_UP, repeats):
            output = found[turn % len(found)]
            params: dict[str, dict[str, object]] = {
                "drivers": {"output_id": output["id"], "k": 8},
                "drivers_across": {"text": output["text"]},
                "heads_across": {},
            }
            started = time.perf_counter()
            run_named(store, name, params[name])
            if turn >= 0:
                times.append((time.perf_counter() - started) * 1000)
        print(f"| {name} | {statistics.median(times):.1f} | {min(times):.1f} | {aim} |")


def load_alone(archive: Path, url: str, writers: int) -> None:
    """Load an archive in this process and tell what it took: the work of `--load`."""
    import resource

    with open_engine(url) as store:
        started = time.perf_counter()
        summary = load_archive(Archive(archive), store, level="mechanism", writers=writers)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"edges": summary.edges, "traces": len(summary.loaded), "seconds": seconds, "peak": peak}))


def measure_memory(running: Running, source: Source, folder: Path, sizes: list[int]) -> None:
    """Print rate and peak memory of loading archives of several sizes, from package to READY."""
    print("\nArchive to READY, four writers, a process of its own:\n")
    print("| traces | edges | archive, MB | edges/s | largest resident memory, MB | aim |\n|---|---|---|---|---|---|")
    for size in sizes:
        archive = Archive(folder / f"archive{size}")
        archive.write(trace for _ in range(size // 8) for trace in source.take(8))
        stored = sum(path.stat().st_size for path in archive.path.rglob("*.parquet"))
        command = [sys.executable, "-m", "bench.neo4j", "--load", str(archive.path), "--url", running.uri]
        done = subprocess.run(command, env={**os.environ, **running.environment}, capture_output=True, text=True, check=True)
        told = json.loads(done.stdout)
        rate = told["edges"] / told["seconds"]
        print(f"| {told['traces']} | {told['edges']:,} | {stored / 1e6:.0f} | {rate:,.0f} | {told['peak'] / 1e6:.0f} | 500 |", flush=True)


def main() -> None:
    """Start a server, measure, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, default=8, help="traces that each side writes in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--archives", type=int, nargs="*", default=[24, 96], help="traces of the archives whose loading is measured")
    parser.add_argument("--neo4j", default="5.26.30", help="version of the server")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.load:
        load_alone(chosen.load, chosen.url, 4)
        return
    source = Source()
    with tempfile.TemporaryDirectory(prefix="tracestore-bench-") as folder:
        server = LocalServer(Path(folder) / "server", chosen.neo4j, tied=True)
        running = server.start(sizes=Sizes("1g", "512m"))
        try:
            who = Credentials("neo4j", running.password_file.read_text(encoding="utf-8").strip(), "neo4j")
            encoder = "Rust" if find_spec("neo4j._rust") else "Python"
            print(f"Neo4j {running.version}, driver with its encoder in {encoder}.\n", flush=True)
            with open_neo4j(running.uri, credentials=who) as store:
                measure_writing(store, who, source, chosen.traces, chosen.rounds)
                measure_reading(store, 60)
            measure_memory(running, source, Path(folder), chosen.archives)
        finally:
            server.kill()


if __name__ == "__main__":
    main()
