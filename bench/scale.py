"""An embedded store as it grows, in tens of traces: load rate and bytes by size, then reads and a replacement: `python -m bench.scale`.

By default 1 000 traces, 20 million edges. Aims: ten-trace appends at 0.35 M edges/s, flat; `drivers` 5 ms, rankings over all traces
150 ms, pruned paths of six hops 60 ms, replacing a trace 5 s. Rates are by the clock and by processor seconds of the whole process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.load import renamed, timed
from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_trace
from tracestore.model import Trace
from tracestore.query import run_named
from tracestore.store import open_engine
from tracestore.store.base import Limits, Store

AT_ONCE = 10

SIX_HOPS = """
MATCH (o:Output {output_id: $output_id})-[:OF]->(x:Trace) WHERE x.ready_id IS NOT NULL WITH o
MATCH p = (o)<-[rs:UNEMBEDS|WRITES|VALUE|RESIDUAL*6..6 (r, n | WHERE abs(r.weight) >= $least)]-(s:State)
RETURN s.layer AS layer, s.pos AS pos, count(*) AS paths ORDER BY paths DESC, layer, pos LIMIT 20
"""
"""From a prediction six edges back, each of at least `least` logits; pruned while it expands."""


def grow(store: Store, path: Path, models: list[Trace], batches: int, shown: int) -> None:
    """Load ten traces at a time; print what each stretch took."""
    print("| traces | edges | M edges/s | M edges per processor s | bytes an edge |\n|---|---|---|---|---|")
    edges, stretch, wall, processor = 0, 0, 0.0, 0.0
    for number in range(batches):
        batch = [renamed(models[index % len(models)], number * AT_ONCE + index) for index in range(AT_ONCE)]
        bundle = bundle_of(batch)
        with timed() as taken:
            stretch += store.load(bundle, level="mechanism").edges
        wall, processor = wall + taken.wall, processor + taken.processor
        if (number + 1) % shown == 0 or number + 1 == batches:
            edges += stretch
            size = path.stat().st_size / edges
            rates = f"{stretch / wall / 1e6:.2f} | {stretch / processor / 1e6:.2f}"
            print(f"| {(number + 1) * AT_ONCE:,} | {edges:,} | {rates} | {size:.0f} |", flush=True)
            stretch, wall, processor = 0, 0.0, 0.0


def reads(store: Store, repeats: int) -> None:
    """Print the medians of reads that are spread over the store."""
    outputs = run_named(store, "list_outputs", {"k": 100_000}).table.to_pylist()
    chosen = [outputs[index * len(outputs) // (repeats + 1)] for index in range(repeats + 1)]
    questions: dict[str, Callable[[int], object]] = {
        "`drivers` by output_id": lambda i: run_named(store, "drivers", {"output_id": chosen[i]["output_id"]}),
        "`drivers_across` of a token": lambda i: run_named(store, "drivers_across", {"text": chosen[i]["text"]}),
        "`heads_across`": lambda i: run_named(store, "heads_across", {}),
        "six hops, pruned": lambda i: store.run(SIX_HOPS, {"output_id": chosen[i]["output_id"], "least": 0.02}, Limits(keep_plan=True)),
    }
    print("\n| read | median, ms | shortest | processor ms |\n|---|---|---|---|")
    for name, ask in questions.items():
        ask(0)
        each = []
        with timed() as total:
            for index in range(1, repeats + 1):
                started = time.perf_counter()
                ask(index)
                each.append((time.perf_counter() - started) * 1e3)
        print(f"| {name} | {statistics.median(each):.1f} | {min(each):.1f} | {total.processor / repeats * 1e3:.1f} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, default=1_000)
    parser.add_argument("--tokens", type=int, default=28)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    models = [make_trace(seed, n_tokens=options.tokens, n_layers=options.layers, n_heads=options.heads) for seed in range(4)]
    with tempfile.TemporaryDirectory(prefix="tracestore-scale-") as folder:
        path = Path(folder) / "graph.lbug"
        batches = options.traces // AT_ONCE
        with open_engine(str(path)) as store:
            grow(store, path, models, batches, max(1, batches // 10))
            with timed() as taken:
                store.load(bundle_of([renamed(models[0], 0)]), level="mechanism", replace=True)
            print(f"\nReplacing a trace: {taken.wall:.1f} s, {taken.processor:.1f} of the processors.")
        with open_engine(str(path), read_only=True) as store:
            reads(store, options.repeats)


if __name__ == "__main__":
    main()
