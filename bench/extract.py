"""Cost of the extraction by `frozen` or `secant`, as multiples of the model's own forward pass in the same process.

    python -m bench.extract [--lengths 64 128 256 1024 2048] [--threads 2] [--repeats 5] [--model FOLDER]
        [--method secant] [--cpu-time] [--memory | --speed]

Without --memory or --speed both are measured. Paired: within each repeat the plain forward (SDPA, no gradient, logits of the last
position), forward + backward of the same model (frozen parameters, gradient at the embeddings) and the extraction (forward, backward
with every attention edge, pruned, tables built) run one after the other, then the same with the compositions and exact paths that are
kept by default; the medians of the ratios are printed. Above 256 tokens a third
of the repeats is taken. --cpu-time counts the time of this process instead of the clock's: what a busy machine allows to compare, with one
thread. Memory is the growth of the peak over the loaded and warm model, at the largest length, one process per
measurement.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tracestore.extract.attribute import Attributor
from tracestore.extract.attribution import TargetSpec
from tracestore.extract.output_tables import OutputNames, output_tables
from tracestore.model import Method, PruningOptions

TEXT = (
    "Alice lives in France and her brother works as an engineer in a small town near the coast. Every summer they travel by train to "
    "visit their parents, who keep a vineyard in the hills. The capital of the country where Alice lives is a city she knows well. "
)


def load(model: str | None) -> tuple[Any, Any]:
    """Load the demo model, or a folder."""
    from tracestore.extract.demo_model import demo_model_folder
    from tracestore.extract.loading import load_model

    loaded = load_model(model or demo_model_folder())
    return loaded.model, loaded.tokenizer


def prompt(tokenizer: Any, length: int) -> torch.Tensor:
    """Give a prompt of exactly `length` tokens [1, T]."""
    ids: torch.Tensor = tokenizer(TEXT, return_tensors="pt").input_ids[0]
    return ids.repeat(length // len(ids) + 1)[None, :length]


def plain(model: Any, ids: torch.Tensor) -> None:
    """Run the model's own forward pass."""
    with torch.no_grad():
        model(input_ids=ids, use_cache=False, logits_to_keep=1)


def forward_backward(model: Any, ids: torch.Tensor) -> None:
    """Run the model's own forward and backward pass, down to the embeddings."""
    embeddings = model.get_input_embeddings()(ids).detach().requires_grad_(True)
    logits = model(inputs_embeds=embeddings, use_cache=False, logits_to_keep=1).logits[0, -1]
    torch.autograd.grad(logits.max(), embeddings)


def extract(attributor: Attributor, ids: torch.Tensor, method: Method, *, walk: bool = False) -> None:
    """Trace one target: edges, pruning, tables; with `walk` also the compositions and paths kept by default."""
    kept, names = PruningOptions(), OutputNames("bench", "bench")
    run = attributor.run(ids, method=method, tap=walk)
    found = run.attribute(TargetSpec(-1), kept, last=True, compose=walk, paths=kept.paths if walk else 0)
    locals_ = np.arange(1, ids.shape[1] + 1)
    output_tables(
        found, names, first_local=ids.shape[1] + 1, token_locals=locals_, token_ids=ids[0].numpy(), most=kept.compositions if walk else 0
    )


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Time one call."""
    start = clock()
    work()
    return clock() - start


def measure(model: Any, tokenizer: Any, lengths: list[int], repeats: int, method: Method, clock: Callable[[], float]) -> None:
    """Print the ratios for every length."""
    attributor = Attributor(model)
    print("| tokens | forward, s | forward + backward | extraction, one target | over forward + backward | each further target ", end="")
    print("| with compositions and paths |\n|---|---|---|---|---|---|---|")
    for length in lengths:
        ids = prompt(tokenizer, length)
        work: tuple[Callable[[], object], ...] = (
            partial(plain, model, ids),
            partial(forward_backward, model, ids),
            partial(extract, attributor, ids, method),
            partial(extract, attributor, ids, method, walk=True),
        )
        for warm in work:
            warm()
        rows = []
        for _ in range(repeats if length <= 256 else max(1, repeats // 3)):
            base, both, traced, walked = (seconds(each, clock) for each in work)
            run = attributor.run(ids, method=method)
            run.attribute(TargetSpec(-1))
            further = seconds(partial(run.attribute, TargetSpec(-1, runner_up=True)), clock)
            rows.append((base, both / base, traced / base, traced / both, further / base, walked / base))
        median = [statistics.median(column) for column in zip(*rows, strict=True)]
        ratios = f"{median[1]:.2f} x | {median[2]:.2f} x | {median[3]:.2f} | {median[4]:.2f} x | {median[5]:.2f} x"
        print(f"| {length} | {median[0]:.3f} | {ratios} |", flush=True)


def measure_memory(lengths: list[int], arguments: argparse.Namespace) -> None:
    """Print the peak memory of forward + backward and of the extraction, each in a process of its own."""
    print("| tokens | forward + backward, MB over the loaded model | extraction, MB | extra, MB |")
    print("|---|---|---|---|")
    for length in lengths:
        peaks = []
        for what in ("both", "extract"):
            command = [sys.executable, "-m", "bench.extract", "--only", what, "--lengths", str(length), "--threads", str(arguments.threads)]
            command += ["--method", arguments.method, *(["--model", arguments.model] if arguments.model else [])]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(float(done.stdout.strip().splitlines()[-1]))
        print(f"| {length} | {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[1] - peaks[0]:.0f} |", flush=True)


def peak() -> float:
    """Give the peak memory of this process, MB. (Linux: `ru_maxrss` would start at the parent's peak.)"""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def run_once(what: str, model: Any, tokenizer: Any, length: int, method: Method) -> None:
    """Run one thing and print the growth of this process's peak memory over the loaded, warm model, MB."""
    short, ids = prompt(tokenizer, 8), prompt(tokenizer, length)
    plain(model, short)
    attributor = Attributor(model)
    extract(attributor, short, method)
    before = peak()
    if what == "both":
        forward_backward(model, ids)
    else:
        extract(attributor, ids, method)
    print(peak() - before)


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 128, 256, 1024, 2048])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model")
    parser.add_argument("--method", choices=["frozen", "secant"], default="frozen")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--only", choices=["both", "extract"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        measure_memory(arguments.lengths[-1:], arguments)
        return
    model, tokenizer = load(arguments.model)
    model.requires_grad_(False)
    if arguments.only:
        run_once(arguments.only, model, tokenizer, arguments.lengths[0], arguments.method)
    else:
        clock = time.process_time if arguments.cpu_time else time.perf_counter
        print(f"Method `{arguments.method}`, {arguments.threads} threads; x: multiples of the model's own plain SDPA forward.\n")
        measure(model, tokenizer, arguments.lengths, arguments.repeats, arguments.method, clock)
        if not arguments.speed:
            print()
            measure_memory(arguments.lengths[-1:], arguments)


if __name__ == "__main__":
    main()
