"""Cost of compositions and exact paths, as multiples of the model's own forward pass in the same process.

    python -m bench.paths [--lengths 64 256] [--threads 1] [--repeats 5] [--model FOLDER]
        [--method secant] [--cpu-time]

Paired: within each repeat the plain forward (as in bench.extract), an attribution without and with compositions, and a search of 1 000
expansions run one after the other; printed are the median forward in seconds, the median of the ratio of what the compositions add to
the forward of the same repeat, and the median seconds of the search for the first output of a prompt and for a further one. --cpu-time
counts the time of this process, as in bench.extract.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

import numpy as np
import torch

from bench.extract import load, plain, prompt, seconds
from tracestore.extract.attribute import Attributor
from tracestore.extract.attribution import TargetSpec
from tracestore.extract.frozen import Seeds
from tracestore.extract.path_steps import PathSteps
from tracestore.extract.paths import find_paths
from tracestore.extract.writers import Writers

EXPANSIONS = 1_000


def main() -> None:
    """Measure and print one row for each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model")
    parser.add_argument("--method", choices=["frozen", "secant"], default="frozen")
    parser.add_argument("--cpu-time", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, tokenizer = load(arguments.model)
    attributor = Attributor(model)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    print("| tokens | forward, s | compositions, x forward | 1 000 expansions, s | for a further output, s |")
    print("|---|---|---|---|---|")
    for length in arguments.lengths:
        ids = prompt(tokenizer, length)
        rows = []
        for number in range(arguments.repeats + 1):  # the first warms up
            base = seconds(partial(plain, model, ids), clock)
            run = attributor.run(ids, tap=True, method=arguments.method)
            without = seconds(partial(run.attribute, TargetSpec(-1)), clock)
            both = seconds(partial(run.attribute, TargetSpec(-1), compose=True), clock)
            found = run.attribute(TargetSpec(-1))
            vector, bias = attributor.reader.direction(found.gauge, found.token_id, None, run.final_state(found.pos))
            seeds = Seeds((found.pos,), vector[None], (bias,))
            steps = PathSteps(attributor, Writers(run.capture, attributor.wiring))
            walk, further = (seconds(partial(find_paths, steps, seeds, np.array([bias]), 50, EXPANSIONS), clock) for _ in range(2))
            if number:
                rows.append((base, (both - without) / base, walk, further))
        median = [statistics.median(column) for column in zip(*rows, strict=True)]
        print(f"| {length} | {median[0]:.3f} | {median[1]:.2f} x | {median[2]:.2f} | {median[3]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
