"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table_lines(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Give the lines of a table: heads, rule, one line for each row of cells."""
    return [_line(heads), "|---" * len(heads) + "|", *(_line([str(cell) for cell in cells]) for cells in rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
