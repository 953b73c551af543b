"""docs/queries.md is what the headers say now."""

from __future__ import annotations

from pathlib import Path

from tracestore.query import catalogue
from tracestore.query.document import document

PAGE = Path(__file__).parents[3] / "docs" / "queries.md"


def test_the_page_is_not_stale() -> None:
    assert PAGE.read_text(encoding="utf-8") == document(), "run: python -m tracestore.query.document > docs/queries.md"


def test_the_page_names_every_query_parameter_and_column() -> None:
    page = document()
    for name, found in catalogue().items():
        section = page.split(f"### {name}\n")[1].split("\n### ")[0]
        assert found.header.question in section
        assert all(f"| `{p.name}` |" in section for p in found.header.parameters)
        assert all(f"| `{c.name}` |" in section for c in found.header.columns)


def test_every_row_has_the_cells_of_its_table() -> None:
    for line in document().replace("\\|", "").splitlines():
        if line.startswith("|"):
            assert line.count("|") in (3, 4, 5)
            assert line.endswith("|")
