"""`trace`, `why`, `ingest` on a tiny random model in a folder, as a user would run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import ok, run
from tests.support.tiny_text_model import save_tiny
from tracestore.archive import Archive
from tracestore.model import DEFAULT_METHOD

ITEMS: list[dict[str, Any]] = [
    {"id": "one", "prompt": "The capital of France is", "expected": " Paris"},
    {"id": "two", "prompt": "The capital of France is", "expected": " Rome", "dataset": "again"},
    {"id": "three", "prompt": "Where is the tower?", "completion": " It is in Paris.", "targets": "generated"},
    {"id": "four", "messages": [{"role": "user", "content": "What is two plus three?"}], "max_new_tokens": 2},
]
DRIVER_KEYS = [
    *("pos", "token_id", "text", "score", "direct", "total", "share", "rank_direct", "rank_total", "sink"),
    *("removal", "drive", "rank_drive"),
]
OUTPUT_KEYS = ["output_id", "pos", "token_id", "text", "logit", "explained", "gauge", "prob", "closure", "bias", "drivers"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def items(tmp_path: Path) -> Path:
    return write_items(tmp_path / "items.jsonl", ITEMS)


def write_items(path: Path, items: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def test_why_prints_the_promised_object(model: Path) -> None:
    found = ok("why", "The capital of France is", "--model", model, "--targets", "last", "--json").json
    assert list(found) == ["trace_id", "model_id", "method", "outputs"]
    assert found["model_id"] == str(model)
    assert found["method"] == DEFAULT_METHOD
    (output,) = found["outputs"]
    assert list(output)[: len(OUTPUT_KEYS)] == OUTPUT_KEYS
    assert [list(driver) for driver in output["drivers"]] == [DRIVER_KEYS] * len(output["drivers"])
    assert output["output_id"] == f"{found['trace_id']}:{output['pos']}:{output['token_id']}"
    assert output["closure"] < 1e-5


def test_scores_of_all_tokens_and_the_bias_are_what_is_explained(model: Path) -> None:
    found = ok("why", "The capital of France is Paris. Where", "--model", model, "--all-tokens", "--json").json
    (output,) = found["outputs"]
    assert len(output["drivers"]) == output["pos"] + 1
    total = sum(driver["score"] for driver in output["drivers"]) + output["bias"]
    assert total == pytest.approx(output["explained"], abs=1e-4)


@pytest.mark.parametrize(("by", "rank"), [("drive", "rank_drive"), ("direct", "rank_direct"), ("total", "rank_total")])
def test_drivers_come_in_the_order_asked_for_sinks_last(model: Path, by: str, rank: str) -> None:
    (output,) = ok("why", "The capital of Italy is", "--model", model, "--by", by, "--all-tokens", "--json").json["outputs"]
    assert [driver[rank] for driver in output["drivers"]] == list(range(1, len(output["drivers"]) + 1))
    assert [driver["sink"] for driver in output["drivers"]] == [False] * (len(output["drivers"]) - 1) + [True]


def test_a_foil_is_explained_as_a_difference(model: Path) -> None:
    (output,) = ok("why", "The capital of France is", "--model", model, "--foil", "runner-up", "--json").json["outputs"]
    assert output["gauge"] == "foil"
    assert output["output_id"].endswith(f"-{output['foil_token_id']}")


def test_why_for_a_reader_shows_text_drivers_heads_and_what_adds_up(model: Path, tmp_path: Path) -> None:
    done = ok("why", "The capital of France is", "--model", model, "--html", tmp_path / "why.html")
    for part in ("The capital of France is", "drivers, by drive", "heads", "add up to", "attention sink", "closure error", "kept:"):
        assert part in done.out
    assert "<!doctype html>" in (tmp_path / "why.html").read_text()


def test_a_file_is_traced_loaded_and_asked(model: Path, items: Path, tmp_path: Path) -> None:
    archive, store = tmp_path / "archive", tmp_path / "graph.lbug"
    summary = ok("trace", "--items", items, "--model", model, "--archive", archive, "--json").json
    assert (summary["items"], summary["traced"], summary["joined"], summary["failed"]) == (4, 3, 1, 0)
    assert summary["worst_closure"] < 1e-5
    assert len(summary["trace_ids"]) == 3
    loaded = ok("load", "--archive", archive, "--store", store, "--json").json
    assert (loaded["loaded"], loaded["level"]) == (3, "mechanism")
    status = ok("store", "status", "--store", store, "--json").json
    assert status["traces"]["READY"] == 3
    assert status["nodes"]["Item"] == 4
    assert status["edges"]["OF"] > 0
    rows = ok("query", "drivers", "-p", f"output_id={output_of(store)}", "-p", "k=3", "--store", store, "--format", "ndjson")
    drivers = [json.loads(line) for line in rows.out.splitlines()]
    assert len(drivers) == 3
    assert [driver["rank_drive"] for driver in drivers] == [1, 2, 3]


def output_of(store: Path) -> str:
    statement = "MATCH (o:Output)-[:OF]->(t:Trace) WHERE t.ready_id IS NOT NULL RETURN o.output_id AS id ORDER BY o.pos DESC LIMIT 1"
    return str(ok("query", statement, "--store", store, "--json").json[0]["id"])


def test_two_lines_that_ask_for_one_trace_become_two_items_of_it(model: Path, items: Path, tmp_path: Path) -> None:
    ok("trace", "--items", items, "--model", model, "--archive", tmp_path / "a")
    archive = Archive(tmp_path / "a", create=False)
    first = next(trace for trace in archive.read_traces() if trace.table("Item").num_rows == 2)
    rows = {row["item_id"]: row for row in first.table("Item").to_pylist()}
    assert set(rows) == {"one", "two"}
    assert rows["two"]["dataset"] == "again"
    assert rows["one"]["correct"] is not None
    assert rows["two"]["correct"] is not None


def test_tracing_again_does_nothing_and_a_new_line_is_added_once(model: Path, items: Path, tmp_path: Path) -> None:
    ok("trace", "--items", items, "--model", model, "--archive", tmp_path / "a")
    again = ok("trace", "--items", items, "--model", model, "--archive", tmp_path / "a", "--json").json
    assert (again["traced"], again["joined"], again["known"]) == (0, 0, 4)
    more = write_items(tmp_path / "more.jsonl", [*ITEMS, {**ITEMS[0], "id": "five", "expected": " Rome"}])
    for expected in ((0, 1, 4), (0, 0, 5)):
        found = ok("trace", "--items", more, "--model", model, "--archive", tmp_path / "a", "--json").json
        assert (found["traced"], found["joined"], found["known"]) == expected
    assert {item for _, item in Archive(tmp_path / "a").item_keys()} == {"one", "two", "three", "four", "five"}


def test_ingest_gives_the_same_as_trace_and_load(model: Path, items: Path, tmp_path: Path) -> None:
    ok("trace", "--items", items, "--model", model, "--archive", tmp_path / "a")
    ok("load", "--archive", tmp_path / "a", "--store", tmp_path / "a.lbug")
    done = ok("ingest", "--items", items, "--model", model, "--archive", tmp_path / "b", "--store", tmp_path / "b.lbug", "--json").json
    assert (done["traced"], done["joined"], done["load"]["loaded"]) == (3, 1, 3)
    one, two = (ok("store", "status", "--store", tmp_path / f"{name}.lbug", "--json").json for name in "ab")
    assert one["nodes"] == two["nodes"]
    assert one["edges"] == two["edges"]


def test_ingest_loads_what_an_earlier_trace_left(model: Path, items: Path, tmp_path: Path) -> None:
    ok("trace", "--items", items, "--model", model, "--archive", tmp_path / "a")
    done = ok("ingest", "--items", items, "--model", model, "--archive", tmp_path / "a", "--store", tmp_path / "a.lbug", "--json").json
    assert (done["traced"], done["known"], done["load"]["loaded"]) == (0, 4, 3)


def test_a_stored_trace_is_answered_alike_from_archive_and_store(model: Path, tmp_path: Path) -> None:
    archive, store = tmp_path / "a", tmp_path / "a.lbug"
    ok("ingest", "The capital of France is", "--model", model, "--archive", archive, "--store", store)
    trace_id = Archive(archive).trace_ids()[0]
    now = ok("why", "The capital of France is", "--model", model, "--json").json
    kept = ok("why", "--trace", trace_id, "--archive", archive, "--json").json
    loaded = ok("why", "--trace", trace_id, "--store", store, "--json").json
    single = ok("why", "--output", kept["outputs"][0]["output_id"], "--store", store, "--json").json
    assert kept == loaded == single == now


def test_no_text_keeps_neither_words_nor_token_ids(model: Path, items: Path, tmp_path: Path) -> None:
    ok("trace", "--items", items, "--model", model, "--archive", tmp_path / "a", "--no-text")
    for trace in Archive(tmp_path / "a").read_traces():
        assert trace.text is None
        assert set(trace.table("Token")["text"].to_pylist()) == {None}
        assert all(token > 1_000_000 for token in trace.table("Token")["token_id"].to_pylist() if token is not None)
        assert set(trace.table("Item")["expected"].to_pylist()) == {None}
    for path in (tmp_path / "a").rglob("*"):
        assert not path.is_file() or b"France" not in path.read_bytes()
    again = ok("trace", "--items", items, "--model", model, "--archive", tmp_path / "a", "--no-text", "--json").json
    assert (again["traced"], again["joined"], again["known"]) == (0, 0, 4)


def test_the_key_of_no_text_can_be_kept_elsewhere(model: Path, items: Path, tmp_path: Path) -> None:
    for name in "ab":
        ok("trace", "--items", items, "--model", model, "--archive", tmp_path / name, "--no-text", "--key-file", tmp_path / "key")
    assert Archive(tmp_path / "a").trace_ids() == Archive(tmp_path / "b").trace_ids()
    assert not (tmp_path / "a" / "redaction.key").exists()
    ok("trace", "--items", items, "--model", model, "--archive", tmp_path / "c", "--no-text")
    assert not set(Archive(tmp_path / "a").trace_ids()) & set(Archive(tmp_path / "c").trace_ids())


def test_plain_text_and_standard_input_are_items(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("The capital of\n\nIt is in\n")
    assert ok("trace", "--items", prompts, "--model", model, "--archive", tmp_path / "a", "--json").json["traced"] == 2
    with prompts.open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        assert ok("trace", "--items", "-", "--model", model, "--archive", tmp_path / "a", "--json").json["known"] == 2


def test_a_malformed_line_is_named_and_the_rest_is_done(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"prompt": "The capital of", "id": "a"}\n\n{"prompt": \n{"prompt": "It is in", "id": "b"}\n')
    done = run("trace", "--items", path, "--model", model, "--archive", tmp_path / "a", "--errors", tmp_path / "errors.jsonl", "--json")
    assert done.code == 6
    assert done.json["traced"] == 2
    (failed,) = [json.loads(line) for line in (tmp_path / "errors.jsonl").read_text().splitlines()]
    assert failed["line"] == 3
    assert "JSON" in failed["reason"]


def test_an_item_that_cannot_be_traced_is_named_by_its_line_without_its_text(model: Path, tmp_path: Path) -> None:
    long = "secretword " * 200
    path = write_items(tmp_path / "items.jsonl", [{"prompt": "It is", "id": "a"}, {"prompt": long, "id": "b"}])
    done = run("trace", "--items", path, "--model", model, "--archive", tmp_path / "a", "--json")
    assert done.code == 6
    (errors,) = (tmp_path / "a" / "errors").iterdir()
    assert done.json["errors"] == str(errors)
    assert errors.stat().st_mode & 0o777 == 0o600
    failed = json.loads(errors.read_text())
    assert (failed["line"], failed["item_id"], failed["kind"]) == (2, "b", "ItemError")
    assert "context" in failed["reason"]
    assert "secretword" not in errors.read_text() + done.err


def test_nothing_traced_at_all_is_bad_input(model: Path, tmp_path: Path) -> None:
    path = write_items(tmp_path / "items.jsonl", [{"prompt": ""}, {"text": "x"}])
    done = run("trace", "--items", path, "--model", model, "--archive", tmp_path / "a")
    assert done.code == 3
    assert "none of the 2 items" in done.err
