"""Every SQL statement of the guide gives what the query of the same name gives in Cypher, on the same archive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from tests.conformance.conftest import fixed_traces
from tests.support.command_line import ok
from tests.support.recipes import STATEMENTS, ask, views
from tracestore import api
from tracestore.api import GraphStore
from tracestore.archive import Archive
from tracestore.query import catalogue, entry

ALL = {"k": 1_000_000}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GraphStore, duckdb.DuckDBPyConnection]]:
    folder = tmp_path_factory.mktemp("duckdb")
    archive = Archive(folder / "archive")
    archive.write(fixed_traces())
    ok("export", "--archive", archive.path, "--format", "parquet", "--output", folder / "tables")
    tables = views(folder / "tables")
    with api.open_store(folder / "graph.lbug") as store:
        store.load(archive, level="mechanism")
        yield store, tables


OF_OUTPUT = ("drivers", "similar_mechanism")
CHOSEN: dict[str, dict[str, Any]] = {
    "drivers_across": {"text": " the"},
    "outputs_driven_by": {"text": " the"},
    "outputs_of_head": {"layer": 1, "head": 0},
    "search_text": {"text": "CAT"},
    "compare_models": {"a": "synthetic", "b": "other"},
    "compare_models_motifs": {"a": "synthetic", "b": "other"},
    "compare_variants_motifs": {"a": "clean", "b": "corrupt"},
    "compare_models_tokens": {"a": "synthetic", "b": "other"},
    "compare_variants": {"a": "clean", "b": "corrupt"},
    "compare_variants_tokens": {"a": "clean", "b": "corrupt"},
}


def comparable(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Order rows by what is no float, so that rounding cannot reorder them."""
    keys = sorted(rows[0])
    return sorted((tuple(row[key] for key in keys) for row in rows), key=lambda row: [str(v) for v in row if not isinstance(v, float)])


@pytest.mark.parametrize("name", STATEMENTS)
def test_sql_and_cypher_agree(both: tuple[GraphStore, duckdb.DuckDBPyConnection], name: str) -> None:
    store, tables = both
    output = store.query("list_outputs", k=1).to_pylist()[0]
    chosen = {"output_id": output["output_id"]} if name in OF_OUTPUT else CHOSEN.get(name, {})
    everything = ALL if entry(name).header.rows == "k" else {}
    cypher = store.query(name, **chosen, **everything).to_pylist()
    sql = ask(tables, name, chosen)
    assert cypher
    assert set(sql[0]) == set(cypher[0])
    assert len(sql) == len(cypher)
    for theirs, ours in zip(comparable(sql), comparable(cypher), strict=True):
        for a, b in zip(theirs, ours, strict=True):
            assert a == (pytest.approx(b, rel=1e-5, abs=1e-6) if isinstance(b, float) else b)


def test_every_question_over_many_prompts_has_its_statement() -> None:
    assert {name for name, found in catalogue().items() if found.header.across} == set(STATEMENTS) - {"drivers"}
