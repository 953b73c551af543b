"""Exports over HTTP are what `tracestore export` writes, of the traces that are asked for, within their bounds."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import tarfile
import tracemalloc
import urllib.request
from collections.abc import Callable, Mapping
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from tests.support.http_server import serving
from tests.support.synthetic import make_traces
from tracestore import api
from tracestore.archive import Archive
from tracestore.export.streaming import LINE_FORMATS, STREAMED, TABLE_FORMATS, Selection, stream_export
from tracestore.export.tables import TABLES
from tracestore.model import Trace
from tracestore.serve.middleware import Exports

Make = Callable[..., TestClient]


def unpacked(data: bytes) -> Mapping[str, bytes]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for entry in tar:
            file = tar.extractfile(entry)
            assert file is not None
            assert entry.mode == 0o600
            found[entry.name] = file.read()
    return found


@pytest.fixture
def loaded_only(served_traces: list[Trace], tmp_path: Path) -> Archive:
    """An archive of what the server shows."""
    archive = Archive(tmp_path / "same")
    archive.write(served_traces)
    return archive


@pytest.mark.parametrize("form", STREAMED)
def test_a_stream_is_what_the_command_writes(
    make_client: Make, archive_path: Path, loaded_only: Archive, tmp_path: Path, form: str
) -> None:
    answer = make_client(archive=str(archive_path)).get(f"/api/export/{form}", params={"level": "mechanism"})
    assert answer.status_code == 200
    api.export_archive(loaded_only, form, tmp_path / "out", level="mechanism")
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert written
    if form in LINE_FORMATS:
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert sorted(answer.content.splitlines()) == sorted(b"".join(written.values()).splitlines())
        return
    streamed = unpacked(answer.content)
    assert set(written) <= set(streamed)
    for name, data in streamed.items():
        if form == "parquet":
            table = pq.read_table(io.BytesIO(data))
            assert table.equals(pq.read_table(io.BytesIO(written[name]))) if name in written else table.num_rows == 0
        elif name in written:
            assert data == written[name]
        else:
            assert data.count(b"\n") == 1  # the names of a table without rows
    if form in TABLE_FORMATS:
        assert set(streamed) == {f"{name}.{form}" for name in TABLES}


def test_one_table_is_a_file(make_client: Make, archive_path: Path, served_traces: list[Trace]) -> None:
    client = make_client(archive=str(archive_path))
    for level, rows in (("summary", 0), ("mechanism", sum(trace.table("State").num_rows for trace in served_traces))):
        answer = client.get("/api/export/parquet/State", params={"level": level})
        assert pq.read_table(io.BytesIO(answer.content)).num_rows == rows
    answer = client.get("/api/export/csv/Output")
    assert answer.headers["content-disposition"] == 'attachment; filename="Output.csv"'
    table = pc.read_csv(io.BytesIO(answer.content))
    assert set(table["output_id"].to_pylist()) == {o.output_id for trace in served_traces for o in trace.outputs}
    assert table["mechanism"].to_pylist() == [False] * table.num_rows
    flagged = pq.read_table(io.BytesIO(client.get("/api/export/parquet/Output", params={"level": "mechanism"}).content))
    assert flagged["mechanism"].to_pylist().count(True) == sum(t.table("State").num_rows > 0 for t in served_traces for _ in t.outputs)


def names(client: TestClient, **params: Any) -> set[str]:
    answer = client.get("/api/export/ndjson", params=params)
    assert answer.status_code == 200, answer.text
    return {json.loads(line)["trace_id"] for line in answer.text.splitlines()}


def test_traces_are_chosen_by_filters_and_by_what_the_store_shows(
    make_client: Make, archive_path: Path, served_traces: list[Trace]
) -> None:
    client = make_client(archive=str(archive_path))
    assert names(client) == {trace.trace_id for trace in served_traces}  # the archive holds one more
    assert names(client, model_id="other") == {served_traces[1].trace_id}
    assert names(client, dataset="facts", tag="easy") == {served_traces[0].trace_id}
    assert names(client, model_id="nobody") == set()
    made = Archive(archive_path).packages()[0].created_at
    assert names(client, archived_since=made) == {trace.trace_id for trace in served_traces}
    assert names(client, archived_since=made + 1) == set()
    for wrong in ({"k": 3}, {"older_than": 1}, {"colour": "red"}, {"correct": "maybe"}, {"level": "all"}):
        assert client.get("/api/export/ndjson", params=wrong).status_code == 422
    for missing in ("yaml", "neo4j-import", "parquet/Tokens", "ndjson/Token"):
        assert client.get(f"/api/export/{missing}").status_code == 422


def test_without_an_archive_there_is_none(make_client: Make) -> None:
    answer = make_client().get("/api/export/ndjson")
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:tracestore:export-off")


def test_an_export_needs_the_token(make_client: Make, archive_path: Path) -> None:
    client = make_client(archive=str(archive_path), token="0123456789abcdef")
    assert client.get("/api/export/ndjson").status_code == 401
    assert client.get("/api/export/ndjson", headers={"Authorization": "Bearer 0123456789abcdef"}).status_code == 200


def test_more_traces_than_may_be_exported_are_refused(make_client: Make, archive_path: Path, served_traces: list[Trace]) -> None:
    answer = make_client(archive=str(archive_path), max_export_traces=4).get("/api/export/ndjson")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:tracestore:too-much")
    assert len(names(make_client(archive=str(archive_path), max_export_traces=len(served_traces)))) == len(served_traces)


def test_a_damaged_package_is_a_problem_and_says_no_more_than_that(make_client: Make, served_traces: list[Trace], tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    archive.write(served_traces)
    (file,) = (tmp_path / "archive").glob("packages/*/Token.parquet")
    file.chmod(0o600)
    file.write_bytes(b"x" + file.read_bytes()[1:])
    answer = make_client(archive=str(tmp_path / "archive")).get("/api/export/parquet/Token")
    assert answer.status_code >= 500
    assert answer.headers["content-type"] == "application/problem+json"


def test_answers_have_a_largest_size(make_client: Make, served_traces: list[Trace]) -> None:
    client = make_client(max_answer_bytes=1_000)
    answer = client.get(f"/api/traces/{served_traces[0].trace_id}")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:tracestore:answer-too-large")
    assert client.get("/healthz").status_code == 200


def test_an_export_beyond_its_size_is_cut_so_that_the_client_sees_it(store_path: Path, archive_path: Path) -> None:
    with serving("--store", store_path, "--archive", archive_path, "--max-export-bytes", 20_000) as served:
        with urllib.request.urlopen(served.url + "/api/export/ndjson?model_id=other", timeout=30) as whole:
            assert whole.read().count(b"\n") == 2
        with urllib.request.urlopen(served.url + "/api/export/graphml", timeout=30) as cut, pytest.raises(IncompleteRead):
            cut.read()


def test_more_exports_than_places_are_told_to_come_back_and_a_slow_one_ends() -> None:
    said: list[int] = []

    async def never(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            said.append(message["status"])

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    app = Exports(never, places=1, seconds=0.05)
    scope = {"type": "http", "path": "/api/export/ndjson", "method": "GET", "headers": []}

    async def ask(count: int) -> None:
        await asyncio.gather(*(app(scope, receive, send) for _ in range(count)))

    asyncio.run(ask(3))
    assert said == [429, 429, 504]
    asyncio.run(ask(1))
    assert said[-1] == 504  # its place was given back


def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    peaks = []
    for count in (1, 3, 12):  # the first warms up
        archive = Archive(tmp_path / f"archive-{count}")
        archive.write(make_traces(count, n_tokens=6, n_layers=2))
        chosen = Selection(archive, only=frozenset(archive.trace_ids()))  # as the server asks
        size = 0
        tracemalloc.start()
        for number, piece in enumerate(stream_export("graphml", chosen)):
            size += len(piece)
            if number % 6 == 0:
                gc.collect()  # graphs are cycles: without it the peak is when the collector last ran
        peaks.append((size, tracemalloc.get_traced_memory()[1]))
        tracemalloc.stop()
    _, (small, low), (large, high) = peaks
    assert large > 3 * small
    assert high < 1.5 * low
