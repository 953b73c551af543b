"""The store's core tests once more with the optional extension, which replaces the driver's encoder.

It lies in a folder of its own beside the environment's packages (`make setup` puts it there), so that every other test runs without it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.command_line import ROOT
from tests.support.neo4j_server import TestServer, missing

FOLDER = Path(sys.prefix) / "neo4j-rust"
CORE = "what_was_written or attach_adds or annotate_appends or run_reads_only or second_load"
IN_USE = "import neo4j._codec.packstream.v1 as codec; print(codec._rust_pack is not None)"


def child(*arguments: str, server: TestServer) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **server.environment, "PYTHONPATH": os.pathsep.join((str(FOLDER), str(ROOT)))}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False)


def test_the_core_of_the_store_works_with_the_extension(neo4j_server: TestServer) -> None:
    if not FOLDER.is_dir():
        missing(f"neo4j-rust-ext is not in {FOLDER}: run `make setup`")
    assert child("-c", IN_USE, server=neo4j_server).stdout.strip() == "True"
    neo4j_server.empty()
    done = child("-m", "pytest", "-q", "tests/integration/test_neo4j_store.py", "-k", CORE, "-p", "no:cacheprovider", server=neo4j_server)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "5 passed" in done.stdout


def test_the_other_tests_run_without_it() -> None:
    done = subprocess.run([sys.executable, "-c", IN_USE], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
