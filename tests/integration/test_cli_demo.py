"""The demo, from the packaged model and from the packaged archive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import ROOT, ok
from tests.support.neo4j_server import TestServer, missing, own_server
from tracestore.archive import Archive
from tracestore.ingest.demo import ITEMS, PREBUILT
from tracestore.ingest.prebuilt import MAX_BYTES, PRUNING

WITHOUT_TORCH = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; from tracestore.cli import main; main()"


def demo_items() -> list[dict[str, Any]]:
    return [json.loads(line) for line in ITEMS.read_text().splitlines()]


def test_the_demo_shows_every_kind_of_item() -> None:
    items = demo_items()
    tags = {tag for item in items for tag in item["tags"]}
    assert len(items) >= 12
    assert {"fact", "arithmetic", "indirect-object", "chat", "replayed", "generated"} <= tags


def test_the_packaged_archive_is_small_sound_and_current() -> None:
    assert sum(path.stat().st_size for path in PREBUILT.rglob("*") if path.is_file()) <= MAX_BYTES
    archive = Archive(PREBUILT, create=False)
    assert archive.verify().ok
    assert {item for _, item in archive.item_keys()} == {item["id"] for item in demo_items()}, "run `make prebuilt`"
    for trace in archive.read_traces():
        assert trace.header["max_edges"] == PRUNING.max_edges
        assert trace.closure < 1e-4


def test_the_packaged_archive_answers_without_torch_and_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, "demo", "--prebuilt", "--output", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for part in ("The capital of France is →  Paris", "drivers, by drive", "over all prompts", "worst closure error"):
        assert part in done.stdout
    assert done.stdout.endswith(f"serve --store {tmp_path / 'prebuilt.lbug'}\n")  # how to open the page
    assert "15 traces loaded, 0 there already" in done.stderr
    assert "check conservation by Cypher" in done.stderr
    assert "Paris" in (tmp_path / "report.html").read_text(encoding="utf-8")
    again = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert "0 traces loaded, 15 there already" in again.stderr
    assert json.loads(again.stdout)["nodes_checked"] > 10_000


def test_make_demo_neo4j_does_the_main_job_on_a_real_server(neo4j_server: TestServer, tmp_path: Path) -> None:
    if neo4j_server.local is None:
        missing("make demo-neo4j starts a local server, and this run stands on another rung")
    with own_server(tmp_path / "home") as server:  # the shared one has too little transaction memory for a whole demo
        _make_demo_neo4j(server, tmp_path)


def _make_demo_neo4j(server: TestServer, tmp_path: Path) -> None:
    assert server.local is not None
    venv = Path(sys.prefix)
    command = ["make", "-o", str(venv / ".installed"), "demo-neo4j", f"VENV={venv}", "DEMO_FLAGS=--prebuilt", f"DEMO_OUTPUT={tmp_path}"]
    done = subprocess.run(
        [*command, f"DEMO_SERVER={server.local.home}"],  # which runs: it is used as it is
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for part in ("The capital of France is →  Paris", "drivers, by drive", "over all prompts", server.uri, "To stop it:"):
        assert part in done.stdout
    assert "15 traces loaded" in done.stderr
    assert server.run("MATCH (t:Trace) WHERE t.ready_id IS NOT NULL RETURN count(t)") == [[15]]
    assert "Paris" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_whole_demo_on_the_real_model(tmp_path: Path) -> None:
    done = ok("demo", "--output", tmp_path, "--json").json
    assert done["worst_closure"] < 1e-4
    assert done["worst_conservation"] < 1e-4
    archive = Archive(tmp_path / "archive", create=False)
    assert len(archive) == len(demo_items())
    predicted = {}
    for trace in archive.read_traces():
        predicted[trace.table("Item")["item_id"][0].as_py()] = trace.outputs[0].row["text"]
    assert predicted["fact-france"] == " Paris"
    assert predicted["object-mary"] == " Mary"
    assert predicted["sum-five-two"] == "7"
    answer = ok("why", "--output", done["output_id"], "--store", tmp_path / "graph.lbug", "--json").json
    assert answer["outputs"][0]["text"] == " Paris"
    assert {driver["text"] for driver in answer["outputs"][0]["drivers"][:2]} == {" capital", " France"}
