"""Run every benchmark in a process of its own and write docs/benchmarks.md: `python -m bench` (or `make bench`).

Each command prints what it measured as Markdown; the page is those prints, with the command that gave them. A run that names modules
replaces their sections and leaves the others, each of which tells the day it is of. Those of Neo4j start a server (docs/neo4j.md).
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tracestore.cli._tracing import WAITING

COMMANDS: Final = (
    "extract",
    "extract --method secant",
    "paths",
    "knockouts",
    "archive",
    "load",
    "query",
    "ingest",
    "serve",
    "neo4j",
    "neo4j_import",
)
PAGE: Final = Path(__file__).parents[1] / "docs" / "benchmarks.md"

HEAD: Final = """# Benchmarks

Measured with {cores} cores ({machine}), Python {python}, by `make bench`. The machine was shared and noisy: the ratios, taken in
one process and one run, are what counts; absolute times are orientation. Single modules run as `python -m bench.NAME`.
"""


def measure(command: str) -> str:
    """Run one benchmark; give its section of the page."""
    print(f"bench.{command} ...", file=sys.stderr, flush=True)
    settings = {**WAITING, **os.environ}
    program = [sys.executable, "-m", *f"bench.{command}".split()]
    before = os.getloadavg()[0]
    done = subprocess.run(program, cwd=PAGE.parents[1], env=settings, stdout=subprocess.PIPE, text=True, check=True)
    day = datetime.datetime.now(tz=datetime.UTC).date()
    return f"## `python -m bench.{command}`\n\n{day}, load average {before:.1f} at the start.\n\n{done.stdout.strip()}\n"


def sections(page: str) -> dict[str, str]:
    """Cut a page into its sections, by command; what stands above the first is left out."""
    parts = re.split(r"^(?=## `python -m bench\.)", page, flags=re.MULTILINE)[1:]
    return {re.findall(r"bench\.([^`]+)`", part)[0]: part.strip() + "\n" for part in parts}


def main() -> None:
    """Measure the modules named on the command line (all of them by default), one by one, and write the page after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="module", help="; ".join(COMMANDS))
    modules = set(parser.parse_args().modules)
    if unknown := modules - {command.split()[0] for command in COMMANDS}:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    head = HEAD.format(cores=os.cpu_count(), machine=platform.machine(), python=platform.python_version())
    for command in COMMANDS:
        if not modules or command.split()[0] in modules:
            found = sections(PAGE.read_text(encoding="utf-8")) | {command: measure(command)}
            PAGE.write_text("\n".join([head, *(found[each] for each in COMMANDS if each in found)]), encoding="utf-8")


if __name__ == "__main__":
    main()
