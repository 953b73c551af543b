"""Many clients at once on loopback, on a store with real shapes: `python -m bench.serve`.

Aim: 50 clients for 20 s, no error, p99 recorded, memory flat. Each client asks in turn for the list, a trace, drivers, heads and a ranking
over all traces, over a connection that stays open. A second run asks for graphs alone, the largest answer.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]

from bench.query import fill
from tests.support.http_server import serving
from tracestore.api import open_store

CLIENTS, SECONDS = 50, 20.0


@dataclass(slots=True)
class Load:
    """What a run found: milliseconds of every answer, statuses other than 200, and the server's memory (MB) after so many answers."""

    taken: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[int, float]] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Give the milliseconds within which this share of the answers came."""
        ordered = sorted(self.taken)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def growth(self) -> float:
        """How much the memory of the last third of the answers is above that of the second, as a share.

        Thirds of the answers, not of the time: the first answers warm the server up, however long a busy machine takes for them.
        NaN where the memory was not seen in both.
        """
        third = len(self.taken) / 3
        early = [memory for answers, memory in self.memory if third <= answers < 2 * third]
        late = [memory for answers, memory in self.memory if answers >= 2 * third]
        return statistics.median(late) / statistics.median(early) - 1 if early and late else math.nan


async def _answer(reader: asyncio.StreamReader) -> int:
    """Read one answer whose length is told; give its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    lengths = [int(line.split(":")[1]) for line in head if line.lower().startswith("content-length:")]
    await reader.readexactly(lengths[0])
    return int(head[0].split()[1])


async def _client(url: str, paths: Sequence[str], first: int, load: Load, going: Callable[[], bool]) -> None:
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    turn = first
    while going():
        path = paths[turn % len(paths)]
        started = time.perf_counter()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
        try:
            status = await _answer(reader)
        except (OSError, EOFError, IndexError) as error:
            load.errors[type(error).__name__] += 1
            break
        load.taken.append((time.perf_counter() - started) * 1e3)
        if status != 200:
            load.errors[f"{status} {path.split('?')[0]}"] += 1
        turn += 1
    writer.close()


async def _watch(process: int, load: Load, going: Callable[[], bool]) -> None:
    server = psutil.Process(process)
    while going():
        load.memory.append((len(load.taken), server.memory_info().rss / 1e6))
        await asyncio.sleep(0.1)


async def hammer(url: str, process: int, paths: Sequence[str], *, clients: int, seconds: float, answers: int | None = None) -> Load:
    """Ask from many clients at once for a time, or until there are so many answers."""
    load = Load()
    until = time.perf_counter() + seconds

    def going() -> bool:
        return time.perf_counter() < until and (answers is None or len(load.taken) < answers)

    await asyncio.gather(_watch(process, load, going), *(_client(url, paths, number, load, going) for number in range(clients)))
    return load


def paths_of(store: str, *, outputs: int = 20) -> tuple[list[str], list[str]]:
    """Give what a reader asks for, and the graphs."""
    with open_store(store, read_only=True) as graph:
        rows = graph.query("list_outputs", k=outputs).to_pylist()
    reading = ["/api/traces?limit=20", "/api/queries/heads_across?k=20"]
    for row in rows:
        reading.append(f"/api/traces/{row['trace_id']}")
        reading += [f"/api/outputs/{row['output_id']}/{part}" for part in ("drivers", "heads")]
    return reading, [f"/api/outputs/{row['output_id']}/graph" for row in rows if row["mechanism"]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--edges", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store, traces, edges = fill(Path(folder), options.edges)
        reading, graphs = paths_of(store)
        print(f"{options.clients} clients for {options.seconds:g} s, a store of {traces:,} traces and {edges:,} edges; server and")
        print("clients share the machine.\n\n| asked for | answers/s | p50 ms | p95 ms | p99 ms | errors | memory MB | growth |")
        print("|---|---|---|---|---|---|---|---|")
        for name, paths in (("traces, drivers, heads, a ranking", reading), ("graphs", graphs or reading)):
            with serving("--store", store) as served:
                load = asyncio.run(hammer(served.url, served.process.pid, paths, clients=options.clients, seconds=options.seconds))
            middle = [f"{load.percentile(share):.0f}" for share in (0.5, 0.95, 0.99)]
            cells = [name, f"{len(load.taken) / options.seconds:,.0f}", *middle, str(sum(load.errors.values()))]
            print("| " + " | ".join([*cells, f"{load.memory[-1][1]:.0f}", f"{load.growth:+.1%}"]) + " |")


if __name__ == "__main__":
    main()
