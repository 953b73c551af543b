"""Small parts of an HTML page: tables with bars, cards, sections. Everything that comes from data is escaped here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from tracestore.coloured import shown

Row = Mapping[str, Any]

STYLE: Final = """<style>
:root{color-scheme:light dark;--line:rgba(128,128,128,.3);--soft:rgba(128,128,128,.09);--bar:rgba(37,99,235,.28)}
body{font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;margin:0 auto;max-width:66rem;padding:2.5rem 1.5rem 5rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem}
h2{font-size:1.25rem;margin:3rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:0 0 .5rem}p{margin:.5rem 0}.lead{opacity:.8;margin:0 0 1.5rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.7rem;margin:1.2rem 0}
.card{background:var(--soft);border-radius:8px;padding:.7rem .9rem}
.card b{display:block;font-size:1.25rem;font-variant-numeric:tabular-nums}
.card span{font-size:.8rem;opacity:.75}
.answer{border:1px solid var(--line);border-radius:10px;padding:1.1rem 1.3rem;margin:0 0 1.2rem}
.answer.first{border-width:2px}.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(22rem,1fr));gap:0 2rem}
.meta{font-size:.85rem;opacity:.75;overflow-wrap:anywhere}.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.88rem;margin:.4rem 0 .8rem}caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{text-align:left;padding:.22rem .6rem .22rem 0;border-bottom:1px solid var(--line);vertical-align:baseline;overflow-wrap:anywhere}
th{font-weight:500;opacity:.7;font-size:.8rem;overflow-wrap:normal}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.bar{background:linear-gradient(to right,var(--bar) var(--w),transparent 0) no-repeat}tr.sink{opacity:.55}
td.t{white-space:pre-wrap;min-width:7ch;font-family:ui-monospace,monospace;font-size:.84rem}
details{margin:.3rem 0}summary{cursor:pointer;opacity:.8;font-size:.9rem}
@media print{details>*{display:block}body{max-width:none}}
</style>"""


_NUMERIC: Final = dict.fromkeys(("number", "signed", "share", "count"), ' class="n"')


@dataclass(frozen=True, slots=True)
class Cell:
    """One column of a table: heading, how a row's value is spelt, and what it is (text, number, share with a bar, token)."""

    heading: str
    value: Callable[[Row], Any]
    kind: str = "text"


def field(name: str) -> Callable[[Row], Any]:
    """Read one property of a row."""
    return lambda row: row[name]


def token(text: str = "text", token_id: str = "token_id") -> Callable[[Row], Any]:
    """Spell a row's token so that all of it is seen."""
    return lambda row: shown(row.get(text), row.get(token_id))


def table(caption: str, rows: Sequence[Row], cells: Sequence[Cell]) -> str:
    """Give a table; nothing where there are no rows. Rows whose `sink` is true are greyed; bars are relative to the others' largest."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col"{_NUMERIC.get(cell.kind, "")}>{escape(cell.heading)}</th>' for cell in cells)
    bars = [row for row in rows if not row.get("sink")]
    largest = {cell.heading: max((cell.value(row) or 0.0 for row in bars), default=0.0) for cell in cells if cell.kind == "share"}
    body = "".join(f"<tr{_sink(row)}>{''.join(_cell(cell, row, largest.get(cell.heading, 0.0)) for cell in cells)}</tr>" for row in rows)
    return f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def cards(numbers: Iterable[tuple[str, str]]) -> str:
    """Give big numbers, each with what it is."""
    return (
        '<div class="cards">'
        + "".join(f'<div class="card"><b>{escape(n)}</b><span>{escape(what)}</span></div>' for n, what in numbers)
        + "</div>"
    )


def page(title: str, body: Iterable[str], style: str = "") -> str:
    """Give a whole page that needs nothing from anywhere, and may load nothing."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"{STYLE}{style}</head>\n<body>\n" + "\n".join(part for part in body if part) + "\n</body></html>\n"
    )


def percent(value: float | None) -> str:
    """Spell a share."""
    return "" if value is None else f"{value:.1%}"


def small(value: float | None) -> str:
    """Spell an error."""
    return "" if value is None else f"{value:.1e}"


def _sink(row: Row) -> str:
    return ' class="sink"' if row.get("sink") else ""


def _cell(cell: Cell, row: Row, largest: float) -> str:
    value = cell.value(row)
    if value is None:
        return "<td></td>"
    match cell.kind:
        case "number":
            return f'<td class="n">{value:.3f}</td>'
        case "signed":
            return f'<td class="n">{value:+.3f}</td>'
        case "count":
            return f'<td class="n">{value:,}</td>'
        case "share":
            width = 0.0 if row.get("sink") else 100 * max(value, 0.0) / (largest or 1.0)
            return f'<td class="n bar" style="--w:{width:.1f}%">{value:.1%}</td>'
        case "token":
            return f'<td class="t">{escape(str(value))}</td>'
    return f"<td>{escape(str(value))}</td>"
