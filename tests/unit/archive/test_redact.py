"""Nothing of the words survives `--no-text`, and every number does."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from tests.support.synthetic import conservation_errors, make_trace
from tracestore import ids, schema
from tracestore.archive import Archive, redact, redact_item, redacted_item_id, redacted_trace_id
from tracestore.archive.redact import load_key
from tracestore.errors import BadInputError
from tracestore.model import Trace

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
TEXT = "zebra quagga okapi zebra tapir"
HASHED_ID = ids.content_hash(["line", TEXT])
ITEMS: list[dict[str, Any]] = [
    {"item_id": "mine-1", "expected": "zebra", "rationale": "stripes", "dataset": "animals", "tags": ["t"]},
    {"item_id": HASHED_ID},
]


def _trace() -> Trace:
    return make_trace(3, text=TEXT, positions=[2, 4], target_text=" lynx", items=ITEMS, extras=True)


KEPT_STRINGS = {
    "Trace": {"model_id", "model_fingerprint", "run_id", "generation", "method", "dtype", "device", "versions"},
    "Item": {"dataset", "split", "variant", "tags", "session_id", "otel_trace_id", "otel_span_id"},
    "Token": {"model_id", "origin"},
    "Span": {"kind", "ref"},
    "Output": {"model_id", "gauge"},
    "HeadSummary": {"model_id"},
    "Composition": {"model_id", "src", "dst", "via"},
    "Path": {"model_id", "motif", "hops"},
    "State": {"site"},
}
CHANGED_STRINGS = {
    "Trace": {"trace_id", "prompt_hash", "text"},
    "Item": {"item_id", "expected", "rationale"},
    "Token": {"text"},
    "Span": {"text"},
    "Output": {"output_id", "text", "foil_text"},
}


def test_every_string_of_the_schema_was_decided_on() -> None:
    for table in schema.NODE_BY_LABEL:
        strings = {column.name for column in schema.table_columns(table) if column.kind in ("string", "strings")}
        assert strings == KEPT_STRINGS.get(table, set()) | CHANGED_STRINGS.get(table, set()), table
    tokens = {(table, c.name) for table in schema.ARCHIVE_TABLES for c in schema.table_columns(table) if "token_id" in c.name}
    assert tokens == {("Token", "token_id"), ("Output", "token_id"), ("Output", "foil_token_id")}


def test_no_word_id_or_length_is_left_on_disk(tmp_path: Path) -> None:
    trace = _trace()
    archive = Archive(tmp_path / "a")
    archive.write([redact(trace, KEY)])
    found = archive.read_trace(redacted_trace_id(trace.trace_id, KEY))
    dump = str({name: table.to_pydict() for name, table in found.tables.items()})
    hidden = [*TEXT.split(), "lynx", trace.trace_id, HASHED_ID, trace.header["prompt_hash"]]
    hidden += [f"{row['token_id']}," for name in ("Token", "Output") for row in trace.table(name).to_pylist()]
    assert [word for word in hidden if word in dump] == []
    assert set(found.table("Token")["char_to"].to_pylist()) == {0}
    assert set(found.table("Token")["char_from"].to_pylist()) == {0}
    for path in archive.path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert [word for word in (*TEXT.split(), "lynx", trace.trace_id) if word.encode() in data] == [], path


def test_everything_else_is_kept() -> None:
    trace = _trace()
    found = redact(trace, KEY)
    changed = {**CHANGED_STRINGS}
    changed["Token"] = {"text", "token_id", "char_from", "char_to"}
    changed["Output"] = {*changed["Output"], "token_id", "foil_token_id"}
    assert set(found.tables) == set(trace.tables)
    for name, table in trace.tables.items():
        kept = [column for column in table.column_names if column not in changed.get(name, set())]
        assert found.table(name).schema.equals(table.schema)
        assert found.table(name).select(kept).equals(table.select(kept)), name
    assert conservation_errors(found) == 0.0


def test_equal_tokens_stay_equal_within_a_key_and_differ_between_keys() -> None:
    trace = make_trace(1, text="zebra ox zebra ox", positions=[1], items=[])
    one, again, other = redact(trace, KEY), redact(trace, KEY), redact(trace, OTHER_KEY)
    tokens = one.table("Token")["token_id"].to_pylist()
    assert tokens[1] == tokens[3] != tokens[2]
    assert one.outputs[0].row["token_id"] == tokens[2]
    assert one.outputs[0].output_id == f"{one.trace_id}:1:{tokens[2]}"
    assert one.trace_id == again.trace_id == redacted_trace_id(trace.trace_id, KEY)
    assert one.trace_id != other.trace_id
    assert not set(tokens) & set(other.table("Token")["token_id"].to_pylist())
    assert one.header["prompt_hash"] not in (trace.header["prompt_hash"], other.header["prompt_hash"])


def test_a_foil_is_keyed_too() -> None:
    trace = make_trace(1, positions=[7])
    foil = schema.arrow_schema("Output")
    import pyarrow as pa

    outputs = trace.tables["Output"]
    for column, values in (("foil_token_id", [17]), ("foil_text", [" Rome"])):
        field = foil.field(column)
        outputs = outputs.set_column(outputs.column_names.index(column), field, pa.array(values, field.type))
    row = redact(Trace(trace.trace_id, {**trace.tables, "Output": outputs}), KEY).outputs[0].row
    assert row["foil_text"] is None
    assert row["foil_token_id"] == ids.keyed_token(17, KEY)
    assert str(row["output_id"]).endswith(f"-{ids.keyed_token(17, KEY)}")


def test_own_item_ids_stay_and_hashes_of_content_are_keyed() -> None:
    assert redacted_item_id("mine-1", KEY) == "mine-1"
    assert redacted_item_id(HASHED_ID, KEY) not in (HASHED_ID, redacted_item_id(HASHED_ID, OTHER_KEY))
    assert redact_item(ITEMS[0], KEY) == {**ITEMS[0], "expected": None, "rationale": None}
    rows = redact(_trace(), KEY).table("Item").to_pylist()
    assert [(row["item_id"], row["expected"]) for row in rows] == [("mine-1", None), (redacted_item_id(HASHED_ID, KEY), None)]


def test_the_key_is_made_once_private_and_read_again(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "a")
    key = archive.redaction_key()
    assert len(set(key)) > 8
    assert archive.redaction_key() == Archive(tmp_path / "a").redaction_key() == key
    elsewhere = archive.redaction_key(tmp_path / "keys" / "mine.key")
    assert elsewhere != key
    assert load_key(tmp_path / "keys" / "mine.key") == elsewhere
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["mine.key"]


def test_a_key_that_others_may_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    load_key(path)
    path.chmod(0o640)
    with pytest.raises(BadInputError, match="chmod 600"):
        load_key(path)
    path.write_text("secret words")
    path.chmod(0o600)
    with pytest.raises(BadInputError, match="not a key file") as caught:
        load_key(path)
    assert "secret words" not in str(caught.value)
    with pytest.raises(BadInputError, match="must have 32 bytes"):
        redact(_trace(), b"short")


def test_processes_that_make_the_key_at_once_agree(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        keys = pool.map(load_key, [tmp_path / "key"] * 12)
    assert len(set(keys)) == 1
