"""The SQL of docs/duckdb.md: its statements by the query's name, and its tables over an export in Parquet."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import duckdb

_TEXT: Final = (Path(__file__).resolve().parents[2] / "docs" / "duckdb.md").read_text(encoding="utf-8")
STATEMENTS: Final[dict[str, str]] = dict(re.findall(r"^### (\w+)\n.*?^```sql\n(.*?)^```", _TEXT, flags=re.DOTALL | re.MULTILINE))
_VIEWS: Final[list[str]] = re.findall(r"^CREATE VIEW .*;$", _TEXT, flags=re.MULTILINE)


def views(folder: Path) -> duckdb.DuckDBPyConnection:
    """Name the tables of an export as the page does; a table without rows has no file and gets no view."""
    tables = duckdb.connect()
    for statement in _VIEWS:
        with suppress(duckdb.IOException):
            tables.execute(statement.replace("'tables/", f"'{folder}/"))
    return tables


def ask(tables: duckdb.DuckDBPyConnection, name: str, params: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the page's statement of this name."""
    cursor = tables.execute(STATEMENTS[name], params)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
