"""Every SQL statement of the guide gives what the query of the same name gives in Cypher, on the same archive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.support.command_line import ok
from tests.support.synthetic import make_traces
from tracestore import api
from tracestore.api import GraphStore
from tracestore.archive import Archive

PAGE = Path(__file__).resolve().parents[2] / "docs" / "duckdb.md"
STATEMENTS = dict(re.findall(r"^### (\w+)\n.*?^```sql\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE))
ALL = {"k": 1_000_000}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GraphStore, duckdb.DuckDBPyConnection]]:
    folder = tmp_path_factory.mktemp("duckdb")
    archive = Archive(folder / "archive")
    archive.write(make_traces(6, extras=True, n_outputs=3))
    ok("export", "--archive", archive.path, "--format", "parquet", "--output", folder / "tables")
    tables = duckdb.connect()
    for path in (folder / "tables").glob("*.parquet"):
        name = "Influences" if path.stem == "INFLUENCES.Token.Output" else path.stem
        tables.execute(f"CREATE VIEW \"{name}\" AS SELECT * FROM '{path}'")
    with api.open_store(folder / "graph.lbug") as store:
        store.load(archive, level="mechanism")
        yield store, tables


def parameters(store: GraphStore, name: str) -> dict[str, Any]:
    output = store.query("list_outputs", k=1).to_pylist()[0]
    if name == "drivers_across":
        return {"text": output["text"]}
    if name == "outputs_driven_by":
        token = store.cypher("MATCH (t:Token) WHERE NOT t.sink RETURN t.text AS text LIMIT 1").to_pylist()[0]
        return {"text": token["text"]}
    if name == "outputs_of_head":
        return {"layer": 1, "head": 0}
    return {"output_id": output["output_id"]} if name == "similar_mechanism" else {}


def comparable(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Order rows by what is no float, so that rounding cannot reorder them."""
    keys = sorted(rows[0])
    return sorted((tuple(row[key] for key in keys) for row in rows), key=lambda row: [str(v) for v in row if not isinstance(v, float)])


@pytest.mark.parametrize("name", STATEMENTS)
def test_sql_and_cypher_agree(both: tuple[GraphStore, duckdb.DuckDBPyConnection], name: str) -> None:
    store, tables = both
    chosen = parameters(store, name)
    extra = {"min_cosine": -1.0} if name == "similar_mechanism" else {}
    cypher = store.query(name, **chosen, **extra, **ALL).to_pylist()
    cursor = tables.execute(STATEMENTS[name], chosen)
    names = [column[0] for column in cursor.description or ()]
    sql = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    assert cypher
    assert set(names) == set(cypher[0])
    assert len(sql) == len(cypher)
    for theirs, ours in zip(comparable(sql), comparable(cypher), strict=True):
        for a, b in zip(theirs, ours, strict=True):
            assert a == (pytest.approx(b, rel=1e-5, abs=1e-6) if isinstance(b, float) else b)


def test_the_page_has_the_questions_over_many_prompts() -> None:
    assert {"drivers_across", "heads_across", "induction_heads", "correct_or_wrong", "similar_mechanism"} <= set(STATEMENTS)
