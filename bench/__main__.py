"""Run every benchmark in a process of its own and write docs/benchmarks.md: `python -m bench` (or `make bench`).

Each module prints what it measured as Markdown; the page is those prints, with the command that gave them.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Final

MODULES: Final = ("extract", "archive", "load", "query", "ingest", "serve", "paths")
PAGE: Final = Path(__file__).parents[1] / "docs" / "benchmarks.md"

HEAD: Final = """# Benchmarks

Measured on {day} with {cores} cores ({machine}), Python {python}, by `make bench`. The machine was shared and noisy: the ratios, taken in
one process and one run, are what counts; absolute times are orientation. Single modules run as `python -m bench.NAME`.
"""


def measure(module: str) -> str:
    """Run one benchmark; give its section of the page."""
    command = [sys.executable, "-m", f"bench.{module}"]
    print(f"bench.{module} ...", file=sys.stderr, flush=True)
    done = subprocess.run(command, cwd=PAGE.parents[1], stdout=subprocess.PIPE, text=True, check=True)
    return f"\n## `python -m bench.{module}`\n\n{done.stdout.strip()}\n"


def main() -> None:
    """Measure the modules named on the command line (all of them by default) and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="module", help=", ".join(MODULES))
    modules = parser.parse_args().modules or list(MODULES)
    if unknown := set(modules) - set(MODULES):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    head = HEAD.format(
        day=datetime.datetime.now(tz=datetime.UTC).date(),
        cores=os.cpu_count(),
        machine=platform.machine(),
        python=platform.python_version(),
    )
    PAGE.write_text(head + "".join(measure(module) for module in modules), encoding="utf-8")


if __name__ == "__main__":
    main()
