"""The bulk path into a new Neo4j server, step by step: `python -m bench.neo4j_import`.

1. Export the archive to files (edges/s, and how much memory this process gained).
2. `neo4j-admin database import full` on them.
3. Start the server and let the first opening make constraints and indexes.
4. Ask: medians of single queries, heap in use, bytes on disk.

"All in" is export + import + constraints; the server's start is shown apart. Client and server share the processors: the load of the
machine is printed, and the processor time beside the wall clock.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import peak_memory, renamed
from tests.support.synthetic import make_trace
from tracestore.api import export_archive
from tracestore.archive import Archive
from tracestore.query import run_named
from tracestore.store.neo4j.connection import Credentials
from tracestore.store.neo4j.local import LocalServer, Sizes
from tracestore.store.neo4j.store import Neo4jStore, open_neo4j


def make_archive(path: Path, traces: int) -> Archive:
    """Write traces of 48 tokens, 8 layers, 4 heads, 2 outputs: about 22 000 edges each."""
    originals = [make_trace(seed, n_tokens=48, n_layers=8, n_heads=4, n_outputs=2, extras=True) for seed in range(4)]
    archive = Archive(path)
    archive.write(renamed(originals[number % len(originals)], number) for number in range(traces))
    return archive


class Clock:
    """Wall-clock and processor seconds of named steps, children included."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.processor: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, server: int | None = None) -> Iterator[None]:
        """Time a block; with `server`, that process's time counts too."""
        before, start = _processor(server), time.perf_counter()
        yield
        self.wall[name] = time.perf_counter() - start
        self.processor[name] = _processor(server) - before


def _processor(server: int | None) -> float:
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    if server is None:
        return own
    fields = Path(f"/proc/{server}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return own + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(store: Neo4jStore) -> dict[str, float]:
    """Give the median of each read through the API, milliseconds."""
    first = run_named(store, "list_outputs", {"k": 1}).table.to_pylist()[0]
    asked: dict[str, dict[str, object]] = {
        "drivers": {"output_id": first["output_id"]},
        "drivers_across": {"text": first["text"]},
        "heads_across": {},
    }
    found = {}
    for name, params in asked.items():
        times = []
        for _ in range(12):
            start = time.perf_counter()
            run_named(store, name, params)
            times.append((time.perf_counter() - start) * 1000)
        found[name] = statistics.median(times[2:])
    return found


def heap_used(store: Neo4jStore) -> float:
    """Ask the server how much of its heap is in use, MB."""
    query = "CALL dbms.queryJmx('java.lang:type=Memory') YIELD attributes RETURN attributes.HeapMemoryUsage.value.properties.used"
    return float(store._database.rows(query)[0][0]) / 1e6


def measure(folder: Path, traces: int, version: str, sizes: Sizes) -> None:
    """Go all the way once and print it as Markdown."""
    archive = make_archive(folder / "archive", traces)
    clock = Clock()
    with clock.step("export"), peak_memory() as memory:
        report = export_archive(archive, "neo4j-import", folder / "files", level="mechanism")
    server = LocalServer(folder / "home", version, tied=True)
    with clock.step("import"):
        server.import_full(report.path)
    with clock.step("server start"):
        running = server.start(sizes=sizes)
    try:
        who = Credentials("neo4j", running.password_file.read_text(encoding="utf-8").strip(), "neo4j")
        with clock.step("constraints", running.pid):
            store = open_neo4j(running.uri, credentials=who)
        with store:
            reads, heap = ask(store), heap_used(store)
            assert store.status().traces["READY"] == traces
    finally:
        server.stop()
    disk = sum(path.stat().st_size for path in (folder / "home" / "data" / "databases" / "neo4j").rglob("*") if path.is_file())
    edges = report.edges
    print(f"\nNeo4j {version}, {traces} traces: {edges:,} edges, {report.nodes:,} nodes; load of the machine {os.getloadavg()[0]:.1f}\n")
    print("| step | s | processor s | edges/s |\n|---|---|---|---|")
    for name, seconds in clock.wall.items():
        print(f"| {name} | {seconds:.1f} | {clock.processor[name]:.1f} | {edges / seconds:,.0f} |")
    counted = ("export", "import", "constraints")
    total, spent = (sum(found[name] for name in counted) for found in (clock.wall, clock.processor))
    print(f"| all in (export, import, constraints) | {total:.1f} | {spent:.1f} | {edges / total:,.0f} |\n")
    alone = edges * (os.cpu_count() or 1) / spent
    print(f"with every processor to itself, by processor time: {alone:,.0f} edges/s")
    print(
        f"files {report.bytes / edges:.0f} B an edge; database {disk / 1e6:,.0f} MB, {disk / edges:.0f} B an edge (with nodes and indexes)"
    )
    print(f"memory added by the export {memory[0]:.0f} MB; heap in use {heap:.0f} MB of {sizes.heap}; page cache {sizes.page_cache}")
    print(", ".join(f"{name} {value:.1f} ms" for name, value in reads.items()))


def main() -> None:
    """Measure each size in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, nargs="+", default=[100], help="about 22 000 edges each")
    parser.add_argument("--neo4j", default="5.26.30", help="version of the server")
    parser.add_argument("--heap", default="1g")
    parser.add_argument("--page-cache", default="512m")
    chosen = parser.parse_args()
    for traces in chosen.traces:
        with tempfile.TemporaryDirectory(prefix="tracestore-bench-") as folder:
            measure(Path(folder), traces, chosen.neo4j, Sizes(chosen.heap, chosen.page_cache))


if __name__ == "__main__":
    main()
