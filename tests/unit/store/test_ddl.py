"""The first migration is what schema.py says."""

from __future__ import annotations

from pathlib import Path

from tests.support.store_graph import ask
from tracestore import schema
from tracestore.store import open_engine
from tracestore.store.ladybug.ddl import schema_script
from tracestore.store.migration_files import known_migrations


def test_the_file_equals_what_the_schema_generates() -> None:
    first = known_migrations("ladybug")[0]
    assert (first.version, first.name) == (1, "schema")
    assert first.text == schema_script()


def test_every_label_and_type_becomes_a_table_with_its_properties(tmp_path: Path) -> None:
    with open_engine(str(tmp_path / "graph.lbug")) as store:
        tables = {(row["type"], row["name"]) for row in ask(store, "CALL show_tables() RETURN type, name")}
        assert {("NODE", node.label) for node in schema.NODES} <= tables
        assert {("REL", edge.type) for edge in schema.EDGES} <= tables
        for node in schema.NODES:
            columns = {row["name"]: row["primary key"] for row in ask(store, f"CALL table_info('{node.label}') RETURN *")}
            assert set(columns) == {"uid", "trace_no", *(c.name for c in node.columns)}
            assert [name for name, key in columns.items() if key] == ["uid"]
        for edge in schema.EDGES:
            properties = {row["name"] for row in ask(store, f"CALL table_info('{edge.type}') RETURN *")}
            assert properties == {c.name for c in edge.columns}
            joined = ask(store, f"CALL show_connection('{edge.type}') RETURN *")
            assert {(row["source table name"], row["destination table name"]) for row in joined} == set(edge.pairs)
