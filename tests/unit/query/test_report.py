"""The HTML report: complete, escaped, self-contained, and its numbers are the queries'."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_trace
from tracestore.errors import QueryError
from tracestore.query import run_named
from tracestore.query.page import Cell, field, table
from tracestore.query.report import html_report, write_report
from tracestore.store import open_engine
from tracestore.store.base import Store

NASTY = '<script>alert(1)</script> & the "cat" the cat\'s'
VOID = {"meta", "!doctype"}


class Reader(HTMLParser):
    """Reads a page, and fails on tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    traces = [make_trace(1, text=NASTY, n_outputs=3, model_id="<b>model</b>"), make_trace(2, text="the cat sat the cat", n_outputs=2)]
    with open_engine(str(tmp_path_factory.mktemp("report") / "graph.lbug")) as opened:
        opened.load(bundle_of(traces), level="mechanism")
        yield opened


@pytest.fixture(scope="module")
def page(store: Store) -> Reader:
    return Reader(html_report(store, title="A <title>"))


def test_every_prediction_and_the_cross_prompt_answers_are_there(store: Store, page: Reader) -> None:
    rows = run_named(store, "list_outputs").table.to_pylist()
    assert len(rows) == 5
    assert all(row["output_id"] in page.text for row in rows)
    for heading in ("The headline", "Every other prediction", "Over all prompts", "Heads that carry most", "How to read this", "Drivers"):
        assert heading in page.text
    assert page.text.count("closure error") >= 5
    assert "nodes that conserve" in page.text
    assert page.text.count("attention kept") >= 5


def test_numbers_are_those_of_the_queries(store: Store, page: Reader) -> None:
    first = run_named(store, "list_outputs").table.to_pylist()[0]
    best = run_named(store, "drivers", {"output_id": first["output_id"], "k": 1}).table.to_pylist()[0]
    assert f"{best['drive']:.1%}{best['score']:+.3f}{best['direct']:.3f}{best['total']:.3f}{best['removal']:+.3f}" in page.text
    checked = sum(row["checked"] for row in run_named(store, "conservation_summary").table.to_pylist())
    assert f"{checked:,}nodes that conserve" in page.text


def test_nothing_comes_from_outside_and_no_text_becomes_markup(store: Store, page: Reader) -> None:
    assert page.addresses == []
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert "<script>alert(1)</script>" in page.text
    assert "<b>model</b>" in page.text
    html = html_report(store)
    assert "default-src 'none'" in html
    assert not re.search(r"https?:|@import|url\(", html)


def test_the_headline_can_be_chosen_and_the_rest_bounded(store: Store) -> None:
    rows = run_named(store, "list_outputs").table.to_pylist()
    text = Reader(html_report(store, rows[3]["output_id"], limit=1)).text
    assert text.index(rows[3]["output_id"]) < text.index(rows[0]["output_id"])
    assert rows[1]["output_id"] not in text
    assert "3 more are in the store" in text


def test_only_some_predictions(store: Store) -> None:
    rows = run_named(store, "list_outputs").table.to_pylist()
    chosen = [rows[1]["output_id"], rows[4]["output_id"]]
    text = Reader(html_report(store, output_ids=chosen)).text
    assert all((row["output_id"] in text) is (row["output_id"] in chosen) for row in rows)


def test_an_unknown_prediction_is_an_error(store: Store) -> None:
    with pytest.raises(QueryError, match="no such output"):
        html_report(store, "nothing:1:2")


def test_it_is_written_to_a_file(store: Store, tmp_path: Path) -> None:
    write_report(store, tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_mode & 0o777 == 0o600  # it holds prompts
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_table_escapes_greys_sinks_and_scales_its_bars() -> None:
    rows: list[dict[str, Any]] = [
        {"name": "<i>", "share": 0.5, "sink": False},
        {"name": "b", "share": 0.1, "sink": True},
        {"name": None, "share": None, "sink": False},
    ]
    html = table("A & B", rows, [Cell("name", field("name")), Cell("share", field("share"), "share")])
    assert "<caption>A &amp; B</caption>" in html
    assert "<td>&lt;i&gt;</td>" in html
    assert 'style="--w:100.0%">50.0%' in html
    assert '<tr class="sink"><td>b</td><td class="n bar" style="--w:0.0%">10.0%' in html
    assert "<td></td><td></td>" in html
    assert table("nothing", [], []) == ""
