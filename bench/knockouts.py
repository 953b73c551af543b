"""Cost of knockouts, as multiples of the model's own forward pass of the same prompt in the same process.

    python -m bench.knockouts [--lengths 16 64 256] [--count 10] [--threads 2] [--repeats 5] [--model FOLDER] [--cpu]

`count` knockouts of one kind and one target, with the run of the model as it is that they are compared with, against `count` plain forward
passes (SDPA, no gradient, logits of the last position), one after the other within each repeat; the median of the ratios is printed.
`--cpu` takes processor seconds instead of the clock's: what to use on a machine that is busy with other things.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.extract import load, plain, prompt
from tracestore.extract.attribute import Attributor
from tracestore.extract.knockouts.measure import KnockoutRunner
from tracestore.extract.knockouts.removal import Removal, Target


def removals(kind: str, count: int, length: int, shape: tuple[int, int]) -> list[Removal]:
    """Give removals of a kind spread over the prompt or the model, after an empty one."""
    spread = [1 + n * (length - 3) // count for n in range(count)]
    heads = [(n * shape[0] // count, n % shape[1]) for n in range(count)]
    made = {
        "column": [Removal(columns=(at,)) for at in spread],
        "edge": [Removal(edges=((*head, length - 1, at),)) for head, at in zip(heads, spread, strict=True)],
        "head": [Removal(heads=(head,)) for head in heads],
        "mean-embedding": [Removal(mean_embeddings=(at,)) for at in spread],
    }
    return [Removal(), *made[kind]]


def several(count: int, model: Any, ids: torch.Tensor) -> None:
    """Run the model's own forward pass `count` times."""
    for _ in range(count):
        plain(model, ids)


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model")
    parser.add_argument("--cpu", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, tokenizer = load(arguments.model)
    clock = time.process_time if arguments.cpu else time.perf_counter

    def seconds(work: Callable[[], object]) -> float:
        start = clock()
        work()
        return clock() - start

    runner = KnockoutRunner(Attributor(model))
    print(f"{arguments.count} knockouts of one prompt, {arguments.threads} threads; x: multiples of as many plain forwards.\n")
    print("| tokens | kind | plain forwards, s | knockouts, s | x |")
    print("|---|---|---|---|---|")
    for length in arguments.lengths:
        ids = prompt(tokenizer, length)
        target = Target(length - 1, (0,), "centred")
        for kind in ("column", "edge", "head", "mean-embedding"):
            work = partial(runner.measure, ids[0].tolist(), target, removals(kind, arguments.count, length, runner.shape))
            work()
            rows = []
            for _ in range(arguments.repeats):
                base = seconds(partial(several, arguments.count, model, ids))
                rows.append((base, seconds(work)))
            base, took = (statistics.median(column) for column in zip(*rows, strict=True))
            ratio = statistics.median(t / b for b, t in rows)
            print(f"| {length} | {kind} | {base:.3f} | {took:.3f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
