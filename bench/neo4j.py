"""Loading into a real Neo4j, paired with a bare driver loop that does nothing but UNWIND CREATE: `python -m bench.neo4j`.

The server is a local process of this run (Java and Maven are needed; see docs/neo4j.md), on the same processors as the client. Every side
writes the same traces, mechanism level, into the same emptied database with the same constraints; the order is turned round every
time and the medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_trace
from tracestore.model import Trace
from tracestore.query import run_named
from tracestore.store.base import TraceBundle
from tracestore.store.neo4j.connection import Credentials, make_driver
from tracestore.store.neo4j.local import LocalServer, Sizes
from tracestore.store.neo4j.store import Neo4jStore, open_neo4j
from tracestore.store.neo4j.writing import edge_statement, node_statement, to_rows
from tracestore.store.staging import Staged, stage

BATCH = 10_000
WIPE = "MATCH (n) WHERE NOT n:StoreMigration AND NOT n:StoreCounter CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 5000 ROWS"


def bare_loop(url: str, who: Credentials, staged: Staged) -> None:
    """Write everything with the driver alone: no lease, no marker, nothing counted, nothing made visible."""
    with make_driver(url, who) as driver, driver.session(database=who.database) as session:
        work = [(node_statement(name), table) for name, table in staged.nodes.items()]
        work += [(edge_statement(name), table) for name, table in staged.edges.items()]
        for statement, table in work:
            for first in range(0, table.num_rows, BATCH):
                session.run(statement, {"rows": to_rows(table.slice(first, BATCH))}).consume()


def wipe(url: str, who: Credentials) -> None:
    """Empty the database; constraints stay."""
    with make_driver(url, who) as driver, driver.session(database=who.database) as session:
        session.run(WIPE).consume()


def read_times(store: Neo4jStore, traces: list[Trace], repeats: int) -> dict[str, float]:
    """Give the median of each read through the API, milliseconds."""
    output = traces[0].outputs[0]
    asked: dict[str, dict[str, object]] = {
        "drivers": {"output_id": output.output_id, "k": 8},
        "drivers_across": {"text": output.row["text"]},
        "heads_across": {},
    }
    found = {}
    for name, params in asked.items():
        run_named(store, name, params)
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            run_named(store, name, params)
            times.append((time.perf_counter() - start) * 1000)
        found[name] = statistics.median(times)
    return found


def measure(url: str, who: Credentials, bundle: TraceBundle, traces: list[Trace], rounds: int) -> None:
    """Print what was measured as Markdown."""
    sides: dict[str, list[float]] = {"bare loop": [], "one writer": [], "four writers": []}
    with open_neo4j(url, credentials=who) as store:
        staged = stage(bundle, {number: number + 1 for number in range(len(traces))}, "mechanism")
        edges = staged.edge_count
        store.load(bundle, level="mechanism")  # warms the server's compiler and its plans
        order = list(sides)
        reads: dict[str, float] = {}
        for turn in range(rounds):
            for side in order if turn % 2 else order[::-1]:
                wipe(url, who)
                start = time.perf_counter()
                if side == "bare loop":
                    bare_loop(url, who, staged)
                else:
                    report = store.load(bundle, level="mechanism", writers=1 if side == "one writer" else 4)
                    assert report.edges == edges
                    if not reads:
                        reads = read_times(store, traces, 15)
                        sides[side].append(edges / report.seconds)
                        continue
                sides[side].append(edges / (time.perf_counter() - start))
    medians = {side: statistics.median(rates) for side, rates in sides.items()}
    print(f"{len(traces)} traces, {edges:,} edges, {staged.node_count:,} nodes; median of {rounds} rounds.")
    print("Client and server share the processors.\n")
    print("| side | edges/s | spread | against |\n|---|---|---|---|")
    against = {
        "bare loop": "",
        "one writer": f"{medians['one writer'] / medians['bare loop']:.2f} x the bare loop",
        "four writers": f"{medians['four writers'] / medians['one writer']:.2f} x one writer",
    }
    for side, rates in sides.items():
        print(f"| {side} | {medians[side]:,.0f} | {min(rates):,.0f} - {max(rates):,.0f} | {against[side]} |")
    print("\n| read, through the API | median, ms |\n|---|---|")
    for name, value in reads.items():
        print(f"| {name} | {value:.1f} |")


def main() -> None:
    """Start a server, measure, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--neo4j", default="5.26.30", help="version of the server")
    chosen = parser.parse_args()
    traces = [make_trace(seed, n_tokens=48, n_layers=8, n_heads=4, n_outputs=2) for seed in range(chosen.traces)]
    with tempfile.TemporaryDirectory(prefix="tracestore-bench-") as folder:
        server = LocalServer(Path(folder), chosen.neo4j, tied=True)
        running = server.start(sizes=Sizes("1g", "512m"))
        try:
            who = Credentials("neo4j", running.password_file.read_text(encoding="utf-8").strip(), "neo4j")
            print(f"Neo4j {running.version}\n")
            measure(running.uri, who, bundle_of(traces), traces, chosen.rounds)
        finally:
            server.kill()


if __name__ == "__main__":
    main()
