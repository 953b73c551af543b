"""The Python interface, used as the guide shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

import tracestore as ts
from tests.support.archives import flip_byte, fresh
from tests.support.tiny_text_model import save_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


def test_from_a_prompt_to_an_answer(folder: Path, tmp_path: Path) -> None:
    model = ts.load_model(folder, device="cpu", dtype="float32")
    trace = ts.trace(model, "The capital of France is", targets="last", foil="runner-up", keep=0.9, max_edges=20_000)
    output = trace.outputs[0]
    influences = output.influences()
    assert influences["rank_drive"].to_pylist() == list(range(1, output.row["pos"] + 2))
    assert sum(row["score"] for row in influences.to_pylist()) + output.row["bias"] == pytest.approx(output.row["explained"], abs=1e-4)
    assert "<span" in output._repr_html_()
    assert trace.closure < 1e-5
    archive = ts.Archive(tmp_path / "traces")
    assert archive.write([trace]) == [trace.trace_id]
    with ts.open_store(tmp_path / "graph.lbug") as store:
        assert store.load(archive).loaded == (trace.trace_id,)
        rows = store.query("drivers", output_id=output.output_id, k=2)
        assert rows["score"].to_pylist() == pytest.approx(influences["score"].to_pylist()[:2])
        found = store.cypher("MATCH (t:Trace) WHERE t.ready_id = $id RETURN t.n_tokens AS n", id=trace.trace_id)
        assert found.to_pylist() == [{"n": trace.header["n_tokens"]}]
        assert store.status().traces["READY"] == 1
        assert store.check().problems == ()
    assert ts.validate(model).ok


def test_many_items_at_once(folder: Path, tmp_path: Path) -> None:
    model = ts.load_model(folder)
    items = [ts.Item(prompt=f"The capital of {name} is", id=name) for name in ("France", "Italy")]
    archive = ts.Archive(tmp_path / "traces")
    with ts.open_store(tmp_path / "graph.lbug") as store:
        summary = ts.ingest_items(items, model, archive, store, ts.TraceOptions(pruning=ts.PruningOptions(keep=0.5)))
        assert summary.traced.traced == len(summary.loaded.loaded) == 2
        assert store.query("list_traces").num_rows == 2
    assert ts.trace_to_archive(items, model, archive, ts.TraceOptions(pruning=ts.PruningOptions(keep=0.5))).known == 2


def test_a_store_that_fails_stops_the_ingest_and_the_archive_keeps_what_is_done(folder: Path, tmp_path: Path) -> None:
    model = ts.load_model(folder)
    archive = ts.Archive(tmp_path / "traces")
    items = [ts.Item(prompt=f"The capital of {n} is", id=str(n)) for n in range(12)]
    ts.open_store(tmp_path / "graph.lbug").close()
    with ts.open_store(tmp_path / "graph.lbug", read_only=True) as store, pytest.raises(ts.StoreError, match="reading only"):
        ts.ingest_items(items, model, archive, store, expected_items=12)
    assert archive.verify().ok
    assert len(archive) >= 10


def test_a_damaged_package_in_the_archive_does_not_stop_an_ingest(folder: Path, tmp_path: Path) -> None:
    model = ts.load_model(folder)
    archive = ts.Archive(tmp_path / "traces")
    items = [ts.Item(prompt=f"The capital of {n} is", id=str(n)) for n in range(24)]
    ts.trace_to_archive(items[:2], model, archive)
    damaged = archive.packages()[0]
    flip_byte(damaged.path / "Token.parquet", 40)
    with ts.open_store(tmp_path / "graph.lbug") as store:
        summary = ts.ingest_items(items, model, fresh(archive), store, expected_items=24)
        assert (summary.traced.known, summary.traced.traced) == (2, 22)
        assert len(summary.loaded.loaded) == store.status().traces["READY"] == 22
    assert len(summary.loaded.failures) == 1
    assert damaged.package_id in summary.loaded.failures[0]
    with pytest.raises(ts.PartialSuccessError, match=damaged.package_id):
        summary.raise_for_failures()
