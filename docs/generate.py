"""Write the reference pages that derive from the code: `python -m docs.generate` (or `make docs`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from tracestore import schema
from tracestore.cli._reference import cli_page
from tracestore.query.document import document

DOCS: Final = Path(__file__).parent

_KINDS: Final = {
    "int": "integer",
    "float": "float",
    "string": "string",
    "bool": "boolean",
    "strings": "list of strings",
    "floats": "list of floats",
    "ref": "reference",
}


def _properties(columns: tuple[schema.Column, ...]) -> Iterator[str]:
    if not columns:
        yield "No properties."
        return
    yield "| property | type | meaning |"
    yield "|---|---|---|"
    for column in columns:
        notes = [text for flag, text in ((column.nullable, "may be null"), (column.store_only, "in stores only")) if flag]
        meaning = column.doc.replace("|", "\\|") + (f" ({'; '.join(notes)})" if notes else "")
        yield f"| `{column.name}` | {_KINDS[column.kind]} | {meaning} |"


def schema_page() -> str:
    """Describe every node label and relationship type."""
    lines = [
        "# Schema reference",
        "",
        f"Generated from `tracestore/schema.py` by `make docs`; schema version {schema.SCHEMA_VERSION}.",
        "",
        "In a store every node also has `uid` (its private key) and `trace_no` (one number per stored trace). In the archive a node has",
        "`local` instead, unique within its trace, and a `..._uid` property holds such a local number. Labels and types of the *summary*",
        "level are always loaded, those of the *mechanism* level on request.",
        "",
        "## Nodes",
    ]
    for node in schema.NODES:
        lines += ["", f"### `{node.label}`", "", f"One per {node.one_per}. Level: {node.level}.", ""]
        lines += _properties(node.columns)
    lines += ["", "## Relationships"]
    for edge in schema.EDGES:
        joins = ", ".join(f"`(:{a})-[:{edge.type}]->(:{b})`" for a, b in edge.pairs)
        lines += ["", f"### `{edge.type}`", "", f"{joins}: {edge.doc}. Level: {edge.level}.", ""]
        lines += _properties(edge.columns)
    return "\n".join(lines) + "\n"


PAGES: Final[Mapping[str, Callable[[], str]]] = {"cli.md": cli_page, "queries.md": document, "schema.md": schema_page}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
