"""Loading into the embedded store, paired with a bare COPY of the same rows in the same process: `python -m bench.load`.

Both write the same traces in the same batches into a fresh database with the same tables. The bare side reads Parquet files that already
hold the engine's columns, one COPY statement per batch and table, nothing checked and nothing made visible. Ours starts from the archive:
hashes are compared, uids made, rows counted twice, visibility flipped. Processor seconds are of all threads of the process.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.synthetic import make_trace
from tracestore import schema
from tracestore.archive import Archive
from tracestore.load import load_archive, plan_load
from tracestore.model import Trace
from tracestore.store import open_engine
from tracestore.store.base import Limits, LoadLevel, TraceBundle
from tracestore.store.ladybug.files import StoreFiles
from tracestore.store.ladybug.handle import Handle, rows
from tracestore.store.ladybug.migrations import apply_migrations
from tracestore.store.staging import stage

HEADLINE = (
    "MATCH (o:Output {output_id: $output_id})-[:OF]->(x:Trace) WHERE x.ready_id IS NOT NULL MATCH (o)<-[i:INFLUENCES]-(t:Token) "
    "RETURN t.pos, t.text, i.score, i.direct, i.share ORDER BY i.rank_direct LIMIT 8"
)


def resident() -> int:
    """Give the resident memory of this process, bytes (Linux)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Taken:
    """Seconds by the clock and of the processors."""

    wall: float = 0.0
    processor: float = 0.0


@contextmanager
def timed() -> Iterator[Taken]:
    """Give what the block takes, known when it has ended."""
    taken = Taken(time.perf_counter(), time.process_time())
    yield taken
    taken.wall = time.perf_counter() - taken.wall
    taken.processor = time.process_time() - taken.processor


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Give a list whose one element is the largest growth of resident memory in the block, MB."""
    stop = Event()
    start = resident()
    found = [0.0]

    def watch() -> None:
        while not stop.wait(0.02):
            found[0] = max(found[0], (resident() - start) / 1e6)

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        stop.set()
        watcher.join()


def renamed(trace: Trace, number: int) -> Trace:
    """Give a copy under another id: making graphs anew would take longer than loading them."""
    name = f"{number:032x}"
    tables = dict(trace.tables)
    header = tables["Trace"]
    tables["Trace"] = header.set_column(header.column_names.index("trace_id"), header.schema.field("trace_id"), pa.array([name]))
    outputs = tables["Output"]
    ids = [name + ":" + str(value).split(":", 1)[1] for value in outputs.column("output_id").to_pylist()]
    tables["Output"] = outputs.set_column(outputs.column_names.index("output_id"), outputs.schema.field("output_id"), pa.array(ids))
    return Trace(name, tables)


def stage_parquet(archive: Archive, folder: Path, batches: list[list[tuple[str, tuple[str, ...]]]], level: LoadLevel) -> None:
    """Write each batch as Parquet files with the engine's own columns."""
    number = 1
    for index, batch in enumerate(batches):
        for package_id, trace_ids in batch:
            for part in archive.bundles(package_id, level=level, trace_ids=trace_ids, max_rows=1 << 40):
                numbers = {ordinal: number + ordinal for ordinal in range(len(part.trace_ids))}
                number += len(numbers)
                staged = stage(TraceBundle(part.trace_ids, part.tables), numbers, level)
                for name, table in {**staged.nodes, **staged.edges}.items():
                    target = folder / str(index) / name
                    target.mkdir(parents=True, exist_ok=True)
                    pq.write_table(table, target / f"{package_id}.parquet")


def bare_copy(folder: Path, database: Path) -> Taken:
    """COPY every batch from Parquet, one statement per table."""
    database.touch()
    handle = Handle(StoreFiles(database), read_only=False)
    try:
        apply_migrations(handle)
        with timed() as taken:
            for batch in sorted(folder.iterdir(), key=lambda path: int(path.name)):
                for name in [*schema.NODE_BY_LABEL, *schema.EDGE_TABLES]:
                    files = [str(file) for file in sorted((batch / name).glob("*.parquet"))]
                    if not files:
                        continue
                    target, pair = name, ""
                    if name in schema.EDGE_TABLES:
                        edge, source, end = schema.EDGE_TABLES[name]
                        target, pair = edge.type, f" (from='{source}', to='{end}')" if len(edge.pairs) > 1 else ""
                    with handle.single_statement() as connection:
                        rows(connection, f"COPY {target} FROM {files}{pair}")
        return taken
    finally:
        handle.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tracestore-bench-"))
    try:
        measure(folder, options)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Make the archive, then measure in pairs."""
    originals = [make_trace(seed, n_tokens=options.tokens, n_layers=options.layers, n_heads=options.heads) for seed in range(4)]
    archive = Archive(folder / "archive")
    archive.write(renamed(originals[number % len(originals)], number) for number in range(options.traces))
    with open_engine(str(folder / "plan.lbug")) as empty:
        plan = plan_load(archive, empty, level="mechanism")
    batches = [[(part.package_id, part.trace_ids) for part in batch.parts] for batch in plan.batches]
    stage_parquet(archive, folder / "parquet", batches, "mechanism")
    ours: list[Taken] = []
    bare: list[Taken] = []
    memory = 0.0
    for pair in range(options.pairs):
        bare.append(bare_copy(folder / "parquet", folder / f"bare{pair}.lbug"))
        fresh = Archive(folder / "archive")
        with open_engine(str(folder / f"ours{pair}.lbug")) as store, peak_memory() as peak, timed() as taken:
            summary = load_archive(fresh, store, level="mechanism")
        ours.append(taken)
        memory = max(memory, peak[0])
    last = folder / f"ours{options.pairs - 1}.lbug"
    per_batch = plan.traces / len(plan.batches)
    print(f"{plan.traces} traces of {options.tokens} tokens, {options.layers} layers, {options.heads} heads: {summary.edges:,} edges and ")
    print(f"{summary.nodes:,} nodes in {len(plan.batches)} batches ({per_batch:.0f} traces each); medians of {options.pairs} pairs.\n")
    print("| | by the clock | of the processors | aim |\n|---|---|---|---|")
    for text, which, aim in (("archive to READY", ours, "0.35 M"), ("bare COPY of the same rows from Parquet", bare, "")):
        clock, processor = (
            summary.edges / statistics.median(times) / 1e6 for times in zip(*((t.wall, t.processor) for t in which), strict=True)
        )
        print(f"| {text}, edges/s | {clock:.2f} M | {processor:.2f} M | {aim} |")
    clock = statistics.median(b.wall / o.wall for b, o in zip(bare, ours, strict=True))
    processor = statistics.median(b.processor / o.processor for b, o in zip(bare, ours, strict=True))
    print(f"| speed against the bare COPY | {clock:.2f} x | {processor:.2f} x | 0.7 x |\n")
    print("| | measured | aim |\n|---|---|---|")
    print(f"| resident memory added, at most | {memory:.0f} MB | 1000 MB |")
    print(f"| store file, bytes an edge (nodes included) | {last.stat().st_size / summary.edges:.0f} | 80 |")
    for read_only in (False, True):
        print(
            f"| headline query through `run`, {'reader' if read_only else 'writer'}, median | {headline(last, read_only):.2f} ms | 5 ms |"
        )


def headline(database: Path, read_only: bool) -> float:
    """Time the headline query over different outputs; median milliseconds after a warm-up."""
    with open_engine(str(database), read_only=read_only) as store:
        ids = store.run("MATCH (o:Output) RETURN o.output_id AS id LIMIT 60", {}, Limits()).table.column("id").to_pylist()
        times = []
        for output_id in ids:
            started = time.perf_counter()
            found = store.run(HEADLINE, {"output_id": output_id}, Limits(keep_plan=True))
            times.append((time.perf_counter() - started) * 1e3)
            assert found.table.num_rows == 8
    return statistics.median(times[10:])


if __name__ == "__main__":
    main()
