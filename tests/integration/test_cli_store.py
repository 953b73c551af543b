"""`load`, `query`, `store ...`, `archive ...` on synthetic traces, as a user would run them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.command_line import ok, run
from tests.support.synthetic import make_traces
from tracestore.archive import Archive
from tracestore.store.migration_files import known_migrations

COUNT = 3


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    found = Archive(tmp_path / "archive")
    found.write(make_traces(COUNT))
    return found.path


@pytest.fixture
def store(archive: Path, tmp_path: Path) -> Path:
    ok("load", "--archive", archive, "--store", tmp_path / "graph.lbug")
    return tmp_path / "graph.lbug"


def ready(store: Path) -> int:
    return int(ok("store", "status", "--store", store, "--json").json["traces"]["READY"])


def test_loading_again_adds_nothing(archive: Path, store: Path) -> None:
    again = ok("load", "--archive", archive, "--store", store, "--json").json
    assert (again["loaded"], again["skipped"], again["edges"]) == (0, COUNT, 0)


def test_the_summary_level_leaves_the_mechanism_out_and_attach_brings_it(archive: Path, tmp_path: Path) -> None:
    store = tmp_path / "summary.lbug"
    ok("load", "--archive", archive, "--store", store, "--level", "summary")
    before = ok("store", "status", "--store", store, "--json").json
    assert before["nodes"]["State"] == 0
    output_id = ok("query", "list_outputs", "--store", store, "--json").json[0]["output_id"]
    attached = ok("store", "attach", output_id, "--store", store, "--archive", archive, "--json").json
    after = ok("store", "status", "--store", store, "--json").json
    assert attached["nodes"] > 0
    assert sum(after["nodes"].values()) == sum(before["nodes"].values()) + attached["nodes"]
    assert ok("query", "check_conservation", "-p", f"output_id={output_id}", "--store", store, "--json").json == []


def test_deleting_is_remembered_and_rebuilding_keeps_it_so(archive: Path, store: Path) -> None:
    trace_id = Archive(archive).trace_ids()[0]
    report = ok("store", "delete", trace_id, "--store", store, "--yes", "--json").json
    assert report["deleted"] == 1
    assert report["bytes_before"] > 0
    assert report["seconds"] > 0
    assert ready(store) == COUNT - 1
    assert ok("load", "--archive", archive, "--store", store, "--json").json["loaded"] == 0
    assert ok("store", "rebuild", "--archive", archive, "--store", store, "--json").json["loaded"] == COUNT - 1
    assert ready(store) == COUNT - 1


def test_init_migrate_and_check_are_harmless(store: Path, tmp_path: Path) -> None:
    fresh = ok("store", "init", "--store", tmp_path / "new.lbug", "--json").json
    assert fresh["url"] == str(tmp_path / "new.lbug")
    assert fresh["migrations"] == [one.file_name for one in known_migrations("ladybug")]
    assert ok("store", "migrate", "--store", store, "--json").json["migrations"] == []
    report = ok("store", "check", "--store", store, "--json").json
    assert report["ok"] is True
    assert report["checked"]["traces"] == COUNT


def test_every_format_holds_the_same_rows(store: Path, tmp_path: Path) -> None:
    command = ["query", "list_traces", "--store", store]
    rows = ok(*command, "--format", "json").json
    assert len(rows) == COUNT
    assert ok(*command, "--json").json == rows
    assert [json.loads(line) for line in ok(*command, "--format", "ndjson").out.splitlines()] == rows
    table = list(csv.DictReader(io.StringIO(ok(*command, "--format", "csv").out)))
    assert [row["trace_id"] for row in table] == [row["trace_id"] for row in rows]
    ok(*command, "--format", "parquet", "--output", tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == rows
    shown = ok(*command).out
    assert all(row["trace_id"] in shown for row in rows)


def test_adhoc_cypher_takes_typed_parameters_and_says_when_it_cuts(store: Path) -> None:
    statement = "MATCH (t:Token)-[:OF]->(r:Trace) WHERE r.ready_id IS NOT NULL AND t.pos < $n RETURN t.pos AS pos ORDER BY pos"
    full = ok("query", statement, "-p", "n=2", "--store", store, "--json")
    assert [row["pos"] for row in full.json] == [0] * COUNT + [1] * COUNT
    assert full.err == ""
    cut = ok("query", statement, "-p", "n=2", "--store", store, "--json", "--limit", "2")
    assert len(cut.json) == 2
    assert "truncated" in cut.err


def test_queries_lists_the_catalogue_and_shows_one_in_full() -> None:
    listed = ok("queries", "--json").json
    assert {"drivers", "drivers_across", "check_conservation"} <= {query["name"] for query in listed}
    one = ok("queries", "drivers", "--json").json
    assert "MATCH" in one["cypher"]
    assert next(p for p in one["parameters"] if p["name"] == "k")["default"] == 10
    assert "Which earlier tokens drove this output token?" in ok("queries", "drivers").out


def test_archive_list_verify_forget_compact(archive: Path) -> None:
    listed = ok("archive", "list", "--archive", archive, "--json").json
    assert [row["trace_id"] for row in listed] == list(Archive(archive).trace_ids())
    assert [row["outputs"] for row in listed] == [1] * COUNT
    assert ok("archive", "verify", "--archive", archive, "--json").json["ok"] is True
    assert ok("archive", "forget", listed[0]["trace_id"], "--archive", archive, "--yes", "--json").json == {"forgotten": 1}
    assert ok("archive", "compact", "--archive", archive, "--json").json["removed_traces"] == 1
    assert len(ok("archive", "list", "--archive", archive, "--json").json) == COUNT - 1
    assert ok("archive", "verify", "--archive", archive, "--json").json["traces"] == COUNT - 1


def test_deleting_asks_first(archive: Path, store: Path) -> None:
    trace_id = Archive(archive).trace_ids()[0]
    assert run("store", "delete", trace_id, "--store", store).code == 1  # no answer on an empty stdin
    assert ready(store) == COUNT


def test_text_search_finds_what_was_said(store: Path) -> None:
    text = ok("query", "list_traces", "--store", store, "--json").json[0]
    assert ok("query", "search_text", "-p", f"text={text['text'][:8]}", "--store", store, "--json").json
