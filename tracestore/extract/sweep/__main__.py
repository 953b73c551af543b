"""Command line of the sweep: progress to stderr, outcomes to docs/families.md or (with --json) to stdout. Exit 7 if one is wrong."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tracestore.errors import IntegrityError
from tracestore.extract.sweep.build import class_names
from tracestore.extract.sweep.outcome import BAD, Outcome
from tracestore.extract.sweep.report import counts, report
from tracestore.extract.sweep.workers import SECONDS, sweep


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tracestore.extract.sweep", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="a model_type or a class name; may be given several times")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON and leave the page alone")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time limit of one class")
    parser.add_argument("--output", type=Path, default=Path("docs/families.md"))
    options = parser.parse_args(arguments)
    known = class_names()
    names = [n for n, kind in known.items() if options.only is None or n in options.only or kind in options.only]
    unknown = sorted(set(options.only or ()) - set(known) - set(known.values()))
    if unknown:
        parser.error(f"no causal-LM class of transformers is called {', '.join(unknown)}")
    started, done = time.monotonic(), [0]

    def tell(outcome: Outcome) -> None:
        done[0] += 1
        spent = time.monotonic() - started
        left = spent / done[0] * (len(names) - done[0])
        text = f"[{done[0]}/{len(names)}, {left:.0f} s left] {outcome.model_type}: {outcome.result}"
        sys.stderr.write(f"{text}{' - ' + outcome.reason if outcome.result in BAD else ''}\n")

    outcomes = sweep(names, tell, workers=options.workers, seconds=options.seconds)
    summary = ", ".join(f"{number} {result}" for result, number in sorted(counts(outcomes).items()))
    sys.stderr.write(f"{summary}, in {time.monotonic() - started:.0f} s\n")
    if options.json:
        sys.stdout.write(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    elif options.only is None:
        options.output.write_text(report(outcomes), encoding="utf-8")
        sys.stderr.write(f"wrote {options.output}\n")
    return IntegrityError.exit_code if any(outcome.result in BAD for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
