"""What a method costs on a prompt: processor time and memory beside a plain forward pass of the same prompt, and what a trace stores."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import torch
from torch.profiler import ProfilerActivity, profile

from tracestore.archive import Archive
from tracestore.evaluate.annotated import Annotated
from tracestore.evaluate.case import Case
from tracestore.evaluate.methods import METHODS
from tracestore.evaluate.runner import Row, processor_seconds
from tracestore.extract.loading import LoadedModel
from tracestore.ingest import trace_to_archive
from tracestore.model import Method, TraceOptions

FEWEST: Final = 3
SECONDS: Final = 2.0
"""A computation is run FEWEST times and for SECONDS of processor time at least, in turn with a forward pass."""

STORED_BY: Final[tuple[Method, ...]] = ("frozen", "secant")


def peak_bytes(run: Callable[[], object]) -> int:
    """Give the peak of what torch holds while `run` runs, over what it held before, bytes (what the allocator was asked for)."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    assert profiler.profiler is not None
    results = profiler.profiler.kineto_results
    assert results is not None
    events = sorted((event for event in results.events() if event.name() == "[memory]"), key=lambda event: event.start_ns())
    held = peak = 0
    for event in events:
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def ratios(compute: Callable[[], object], forward: Callable[[], object]) -> list[float]:
    """Give the processor times of a computation over those of a forward pass, the two measured in turn after one run of each."""
    compute()
    forward()
    taken: list[float] = []
    plain: list[float] = []
    while len(taken) < FEWEST or sum(taken) + sum(plain) < SECONDS:
        taken.append(processor_seconds(compute))
        plain.append(processor_seconds(forward))
    return [mine / its for mine, its in zip(taken, plain, strict=True)]


def cost_rows(cases: Iterable[Case]) -> Iterator[Row]:
    """Measure each computation on each case, one row a method."""
    for case in cases:

        def forward(case: Case = case) -> None:
            with torch.no_grad():
                case.attributor.model(input_ids=case.ids, use_cache=False, logits_to_keep=1)

        yield {"id": case.id, "n_tokens": case.length, "method": "a forward pass", "ratios": [1.0], "peak": peak_bytes(forward)}
        done: dict[int, Row] = {}
        for method in METHODS.values():
            key = id(method.compute)
            if key not in done:

                def compute(case: Case = case, compute: Callable[[Case], object] = method.compute) -> None:
                    compute(case)

                done[key] = {"ratios": ratios(compute, forward), "peak": peak_bytes(compute)}
            yield {"id": case.id, "n_tokens": case.length, "method": method.name, **done[key]}


def stored_rows(load: Callable[[], LoadedModel], items: Sequence[Annotated]) -> Iterator[Row]:
    """Trace items into an archive by each method, with the default options."""
    for method in STORED_BY:
        with tempfile.TemporaryDirectory() as name:
            archive = Archive(Path(name) / "archive")
            trace_to_archive([item.item for item in items], load(), archive, TraceOptions(method=method))
            headers = [archive.read_trace(trace_id).header for trace_id in archive.trace_ids()]
            yield {
                "method": method,
                "traces": len(headers),
                "tokens": sum(header["n_tokens"] for header in headers),
                "bytes": sum(package.bytes for package in archive.packages()),
            }
