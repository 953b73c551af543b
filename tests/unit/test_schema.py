"""The schema is consistent in itself."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tracestore import schema


def test_every_edge_joins_known_labels() -> None:
    assert {label for edge in schema.EDGES for pair in edge.pairs for label in pair} <= set(schema.NODE_BY_LABEL)


def test_names_are_unique_and_parse_in_every_dialect() -> None:
    for table in (*schema.NODE_BY_LABEL, *schema.EDGE_TABLES):
        keys = {"src", "dst"} if table in schema.EDGE_TABLES else {"local", "uid", "trace_no"}
        reserved = {"index", "end", "trace", *keys}  # the first two do not parse in the embedded engine's Cypher
        names = [column.name for column in schema.table_columns(table, store=True)]
        assert len(names) == len(set(names))
        assert not reserved & set(names)


def test_references_are_named_uid_and_point_to_the_of_node() -> None:
    for node in schema.NODES:
        refs = [column.name for column in node.columns if column.kind == "ref"]
        assert all(name.endswith("_uid") for name in refs)
        assert node.of_column is None or node.of_column in refs


def test_store_only_columns_are_not_archived() -> None:
    assert "ready_id" not in schema.arrow_schema("Trace").names
    assert "ready_id" in [column.name for column in schema.table_columns("Trace", store=True)]


def test_package_schema_puts_the_trace_first() -> None:
    assert schema.package_schema("Token").names[:3] == ["trace", "local", "model_id"]
    assert schema.package_schema("VALUE.State.Head").names == ["trace", "src", "dst", "weight", "rank", "attention", "sensitivity"]
    assert schema.arrow_schema("Output").field("head_vector").type == pa.list_(pa.float32())


def test_of_edges_follow_from_nodes_and_are_not_archived() -> None:
    assert not any(table.startswith("OF.") for table in schema.ARCHIVE_TABLES)
    assert {a for a, b in schema.EDGE_BY_TYPE["OF"].pairs if b == "Trace"} == {"Item", "Token", "Span", "Output"}
    assert {a for a, b in schema.EDGE_BY_TYPE["OF"].pairs if b == "Output"} == {"HeadSummary", "Composition", "Path"}


def test_a_table_of_labels_that_do_not_meet_is_refused() -> None:
    with pytest.raises(KeyError, match="EMBEDS does not join Head to State"):
        schema.edge_table("EMBEDS", "Head", "State")
