"""A text coloured by what drove a prediction, for notebooks and reports (HTML) and for the terminal (rich).

Blue raises the prediction, orange lowers it (and is underlined, so that no hue is needed to read the sign); strength is the size over
the largest size among the tokens that are no attention sinks; sinks are grey. Every token says its numbers when pointed at.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from rich.text import Text

Row = Mapping[str, Any]
By = Literal["score", "drive", "direct", "total"]

RAISES: Final = (37, 99, 235)
LOWERS: Final = (234, 88, 12)
_MARKS: Final = {"\n": "↵", "\r": "␍", "\t": "⇥", "\ufffd": "▯"}
_JOINERS: Final = frozenset("\u200c\u200d")  # inside words and emoji: showing them as codes would break both
_MEANING: Final = {
    "score": "signed contribution",
    "direct": "attention-edge mass into the explained position",
    "total": "attention-edge mass into all positions",
}

STYLE: Final = """<style>
.ts-out{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif;margin:0 0 1em;max-width:60em}
.ts-out .ts-head{margin:0 0 .4em}
.ts-out .ts-text{white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.9;margin:0}
.ts-out .ts-t{border-radius:3px;padding:.15em 0;background:rgba(var(--h),var(--a))}
.ts-out .ts-up{--h:37,99,235}.ts-out .ts-down{--h:234,88,12;text-decoration:underline dotted;text-underline-offset:.25em}
.ts-out .ts-sink{background:rgba(128,128,128,.25);opacity:.75}
.ts-out .ts-new{font-weight:600;border:1px solid currentColor;border-radius:3px;padding:.1em .2em;white-space:pre}
.ts-out .ts-mark{opacity:.55}
.ts-out .ts-note{font-size:.85em;opacity:.75;margin:.4em 0 0}
.ts-out .ts-key{padding:.05em .4em;border-radius:3px}
</style>"""


def shown(text: str | None, token_id: int | None = None) -> str:
    """Spell a token's text so that all of it is seen and none of it acts: line ends, controls and fragments of characters as marks.

    Without text (`--no-text`, or a token that stands for no text) its id in angle brackets.
    """
    if not text:
        return "⟨?⟩" if token_id is None else f"⟨{token_id}⟩"
    if text.strip(" ") == "":
        return "·" * len(text)
    return "".join(_shown_char(char) for char in text)


def influence_html(output_row: Row, influence_rows: Iterable[Row], *, by: By = "score", style: bool = True) -> str:
    """Give a self-contained HTML fragment: the text with every token coloured, its numbers in the title, and a legend.

    `output_row`: the Output's properties; `influence_rows`: its tokens with the properties of INFLUENCES, in any order; without
    `style` the page must hold `STYLE` once itself.
    """
    rows = _by_position(influence_rows)
    scale = _scale(rows, by)
    parts = ['<div class="ts-out">', STYLE if style else "", f'<p class="ts-head">{_headline(output_row)}</p>', '<p class="ts-text">']
    parts += [_token_html(row, by, scale) for row in rows]
    parts.append(f' → <span class="ts-new">{_marked(output_row.get("text"), output_row.get("token_id"))}</span></p>')
    parts.append(
        '<p class="ts-note">'
        f'<span class="ts-key" style="background:rgba({_rgb(RAISES)},.45)">raises</span> '
        f'<span class="ts-key ts-down" style="background:rgba({_rgb(LOWERS)},.45)">lowers</span> '
        '<span class="ts-key ts-sink">attention sink</span> '
        f"full colour: {_full_colour(scale, by)}; point at a token for its numbers</p></div>"
    )
    return "".join(parts)


def influence_text(output_row: Row, influence_rows: Iterable[Row], *, by: By = "score") -> Text:
    """Give the same for the terminal: black on a tint, so that it reads on light and dark grounds."""
    from rich.style import Style
    from rich.text import Text

    rows = _by_position(influence_rows)
    scale = _scale(rows, by)
    text = Text()
    for row in rows:
        value = _number(row, by)
        if row.get("sink"):
            style = Style(dim=True)
        elif (strength := _strength(value, scale)) < 0.03:
            style = Style()
        else:
            style = Style(color="black", bgcolor=f"rgb({_rgb(_tint(RAISES if value > 0 else LOWERS, strength))})", underline=value < 0)
        text.append(shown(row.get("text"), row.get("token_id")), style)
        if "\n" in (row.get("text") or ""):
            text.append("\n")
    text.append(" → ")
    text.append(shown(output_row.get("text"), output_row.get("token_id")), Style(bold=True, reverse=True))
    return text


def legend_text(influence_rows: Iterable[Row], *, by: By = "score") -> Text:
    """Give one line that explains the colours of `influence_text`."""
    from rich.style import Style
    from rich.text import Text

    scale = _scale(list(influence_rows), by)
    text = Text()
    text.append(" raises ", Style(color="black", bgcolor=f"rgb({_rgb(_tint(RAISES, 1.0))})"))
    text.append(" ")
    text.append(" lowers ", Style(color="black", bgcolor=f"rgb({_rgb(_tint(LOWERS, 1.0))})", underline=True))
    text.append(" ")
    text.append("attention sink", Style(dim=True))
    text.append(f"; full colour: {_full_colour(scale, by)}", Style(dim=True))
    return text


def _by_position(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: int(row["pos"]))


def _number(row: Row, name: str) -> float:
    value = row.get(name)
    return 0.0 if value is None else float(value)


def _scale(rows: list[Row], by: By) -> float:
    """The largest size among tokens that are no sinks: a sink often outweighs all others and would bleach them."""
    return max((abs(_number(row, by)) for row in rows if not row.get("sink")), default=0.0)


def _full_colour(scale: float, by: By) -> str:
    return f"{scale:.1%} drive" if by == "drive" else f"{scale:.3g} logits of {_MEANING[by]}"


def _strength(value: float, scale: float) -> float:
    return abs(value) / scale if scale > 0 else 0.0


def _tint(colour: tuple[int, int, int], strength: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 - (255 - part) * 0.75 * strength) for part in colour)
    return red, green, blue


def _rgb(colour: tuple[int, int, int]) -> str:
    return ",".join(str(part) for part in colour)


def _shown_char(char: str) -> str:
    if char in _MARKS:
        return _MARKS[char]
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in _JOINERS:
        return f"⟨U+{ord(char):04X}⟩"  # would move the cursor, turn the writing direction or show nothing
    return char


def _marked(text: str | None, token_id: int | None) -> str:
    plain = shown(text, token_id)
    safe = escape(plain, quote=True)
    return safe if text and plain == text else f'<span class="ts-mark">{safe}</span>' if not text else _mark_symbols(safe)


def _mark_symbols(safe: str) -> str:
    for mark in (*_MARKS.values(), "·"):
        safe = safe.replace(mark, f'<span class="ts-mark">{mark}</span>')
    return safe


def _token_html(row: Row, by: By, scale: float) -> str:
    value = _number(row, by)
    title = f"position {row['pos']}: {_MEANING['score']} {_number(row, 'score'):+.3f}, direct {_number(row, 'direct'):.3f} logits"
    if row.get("share") is not None:
        title += f", share {_number(row, 'share'):.1%}"
    if row.get("drive") is not None:
        title += f", drive {_number(row, 'drive'):+.1%}"
    if row.get("rank_drive") is not None:
        title += f", rank {row['rank_drive']}"
    if row.get("sink"):
        kind, style, title = "ts-sink", "", title + ", attention sink"
    else:
        kind, style = "ts-down" if value < 0 else "ts-up", f' style="--a:{0.65 * _strength(value, scale):.2f}"'
    end = "\n" if "\n" in (row.get("text") or "") else ""
    return (
        f'<span class="ts-t {kind}"{style} title="{escape(title, quote=True)}">{_marked(row.get("text"), row.get("token_id"))}</span>{end}'
    )


def _headline(row: Row) -> str:
    parts = [f"<b>{_marked(row.get('text'), row.get('token_id'))}</b>"]
    if row.get("prob") is not None:
        parts.append(f"probability {_number(row, 'prob'):.1%}")
    if row.get("explained") is not None:
        gauge = row.get("gauge")
        against = (
            f" against {_marked(row.get('foil_text'), row.get('foil_token_id'))}"
            if gauge == "foil"
            else f" ({escape(str(gauge))})"
            if gauge
            else ""
        )
        parts.append(f"explained {_number(row, 'explained'):.3f} logits{against}, of it bias {_number(row, 'bias'):+.3f}")
    if row.get("closure") is not None:
        parts.append(f"closure error {_number(row, 'closure'):.1e}")
    return " · ".join(parts)
