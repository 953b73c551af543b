"""Coloured text: every token once, escaped, signed, with its numbers; sinks grey; nothing that acts on a terminal or a page."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tracestore.coloured import influence_html, influence_text, legend_text, shown

OUTPUT = {
    "text": " Paris",
    "token_id": 7,
    "prob": 0.5,
    "explained": 12.345,
    "gauge": "centred",
    "bias": -0.5,
    "closure": 3e-7,
    "foil_text": None,
    "foil_token_id": None,
}


def row(pos: int, text: str | None, score: float, direct: float = 1.0, sink: bool = False, token_id: int = 5) -> dict[str, Any]:
    ranking = {"drive": -0.125, "rank_drive": 3}
    return {"pos": pos, "text": text, "token_id": token_id, "score": score, "direct": direct, "share": 0.25, "sink": sink, **ranking}


ROWS = [row(2, " of", -1.0), row(0, "The", 50.0, sink=True), row(1, " capital", 2.0), row(3, "\n", 0.0)]


class Reader(HTMLParser):
    """Collects text, tags and attributes; fails on tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.spans: list[dict[str, str | None]] = []
        self.text = ""
        self.names: set[str] = set()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.names.add(tag)
        self.spans.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def tokens(self) -> list[dict[str, str | None]]:
        return [attrs for attrs in self.spans if "ts-t" in (attrs.get("class") or "").split()]


def test_html_shows_tokens_in_order_with_sign_strength_and_numbers() -> None:
    reader = Reader(influence_html(OUTPUT, ROWS))
    assert "The capital of↵\n → " in reader.text
    assert [(t["class"], t.get("style")) for t in reader.tokens()] == [
        ("ts-t ts-sink", None),
        ("ts-t ts-up", "--a:0.65"),
        ("ts-t ts-down", "--a:0.33"),
        ("ts-t ts-up", "--a:0.00"),
    ]
    assert reader.tokens()[1]["title"] == "position 1: signed contribution +2.000, direct 1.000 logits, share 25.0%, drive -12.5%, rank 3"
    assert "attention sink" in (reader.tokens()[0]["title"] or "")
    assert "probability 50.0%" in reader.text
    assert "explained 12.345 logits (centred), of it bias -0.500" in reader.text
    assert "full colour: 2 logits" in reader.text


def test_html_can_colour_by_direct_mass() -> None:
    reader = Reader(influence_html(OUTPUT, [row(0, "a", -3.0, direct=4.0), row(1, "b", 1.0, direct=1.0)], by="direct"))
    assert [t["style"] for t in reader.tokens()] == ["--a:0.65", "--a:0.16"]
    assert {t["class"] for t in reader.tokens()} == {"ts-t ts-up"}


def test_colours_by_drive_have_a_sign_and_are_measured_in_shares() -> None:
    rows = [{**row(0, "a", 3.0), "drive": -0.125}, {**row(1, "b", -1.0), "drive": 0.25}]
    reader = Reader(influence_html(OUTPUT, rows, by="drive"))
    assert [(t["class"], t["style"]) for t in reader.tokens()] == [("ts-t ts-down", "--a:0.33"), ("ts-t ts-up", "--a:0.65")]
    assert "full colour: 25.0% drive" in reader.text
    assert legend_text(rows, by="drive").plain.endswith("full colour: 25.0% drive")


def test_html_works_on_dark_grounds_and_needs_nothing_from_outside() -> None:
    html = influence_html(OUTPUT, ROWS)
    assert "color-scheme:light dark" in html
    assert "http" not in html
    assert "<script" not in html
    assert "underline" in html  # the sign without a hue


@given(st.text(max_size=12), st.text(max_size=12))
def test_html_never_lets_text_become_markup(text: str, target: str) -> None:
    rows = [row(0, text + "<img src=x onerror=alert(1)>\"'&", 1.0)]
    reader = Reader(influence_html({**OUTPUT, "text": target + "</span><script>"}, rows))
    assert reader.names == {"div", "style", "p", "b", "span"}
    assert len(reader.tokens()) == 1


def test_foil_is_named() -> None:
    reader = Reader(influence_html({**OUTPUT, "gauge": "foil", "foil_text": " Rome", "foil_token_id": 9}, ROWS))
    assert "against  Rome" in reader.text


@pytest.mark.parametrize(
    ("text", "token_id", "expected"),
    [
        (" Paris", 1, " Paris"),
        (None, 7, "⟨7⟩"),
        ("", 7, "⟨7⟩"),
        (None, None, "⟨?⟩"),
        ("\n\n", 1, "↵↵"),
        ("\t", 1, "⇥"),
        ("\ufffd", 1, "▯"),
        ("   ", 1, "···"),
        ("\x1b[31m", 1, "⟨U+001B⟩[31m"),
        ("\u202eabc", 1, "⟨U+202E⟩abc"),
        ("👩\u200d💻", 1, "👩\u200d💻"),
        ("東京", 1, "東京"),
    ],
)
def test_every_text_is_seen_and_none_acts(text: str | None, token_id: int | None, expected: str) -> None:
    assert shown(text, token_id) == expected


def ansi(text: Any) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=200)
    console.print(text)
    out = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(out, str)
    return out


def test_terminal_text_is_plain_text_with_styles() -> None:
    text = influence_text(OUTPUT, ROWS)
    assert text.plain == "The capital of↵\n →  Paris"
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert styles["The"] == "dim"
    assert styles[" capital"].endswith("black on rgb(92,138,240)")
    assert styles[" of"].startswith("underline")
    assert "not underline" in styles[" capital"]
    assert "bold" in styles[" Paris"]


def test_terminal_text_lets_no_control_character_through() -> None:
    printed = ansi(influence_text({**OUTPUT, "text": "\x07"}, [row(0, "\x1b]0;title\x07", 1.0), row(1, "\x9b31m", -1.0)]))
    assert re.sub(r"\x1b\[[\d;]*m", "", printed) == "⟨U+001B⟩]0;title⟨U+0007⟩⟨U+009B⟩31m → ⟨U+0007⟩\n"


def test_terminal_text_by_direct_has_one_hue() -> None:
    text = influence_text(OUTPUT, [row(0, "a", -3.0, direct=4.0), row(1, "b", 1.0, direct=4.0)], by="direct")
    assert len({str(span.style) for span in text.spans if text.plain[span.start] in "ab"}) == 1


@pytest.mark.parametrize("rows", [[], [row(0, "a", 5.0, sink=True)], [row(0, None, 0.0)]])
def test_nothing_to_colour_is_no_error(rows: list[dict[str, Any]]) -> None:
    Reader(influence_html({"text": None, "token_id": 3}, rows))
    assert influence_text({"text": None, "token_id": 3}, rows).plain.endswith("⟨3⟩")
    assert "full colour: 0 logits" in legend_text(rows).plain
