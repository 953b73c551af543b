"""The page in a real browser, over a store with every kind of thing that it shows. Any word of the console, any request to elsewhere and
any address that fails is an error of the test during which it happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.support.browser import open_browser
from tests.support.http_server import serving
from tests.support.mechanism import build_table
from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_trace
from tracestore.api import open_store
from tracestore.model import Trace

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

LONG = 254
STORY = "Mary gave John a book. So John has the book. Then John read it twice.\nThe answer is John"


@dataclass(frozen=True, slots=True)
class Shown:
    """What the store holds: a trace with every extra, and a long one."""

    url: str
    story: Trace
    long: Trace

    def at(self, screen: str, trace: Trace, **params: Any) -> str:
        """Give the address of a screen of a trace."""
        return f"{self.url}/#/{screen}/{trace.trace_id}?" + "&".join(f"{name}={value}" for name, value in params.items())


def reasoned(trace: Trace) -> Trace:
    """Mark two steps and an answer in a trace, the answer carried by both, and give its item a rationale."""
    from dataclasses import replace

    local = max(int(np.max(table["local"].to_numpy())) for name, table in trace.tables.items() if "local" in table.column_names) + 1
    kinds, ends = ["step", "step", "answer"], [(0, 4), (5, 9), (14, 17)]
    words = [str(word) for word in trace.table("Token")["text"].to_pylist()]
    spans = {
        "local": np.arange(local, local + 3),
        "kind": kinds,
        "ordinal": [0, 1, 0],
        "first_pos": [first for first, _ in ends],
        "last_pos": [last for _, last in ends],
        "text": ["".join(words[first : last + 1]) for first, last in ends],
    }
    scores, directs = np.array([[2.5, -1.0], [3.0, 4.0]], dtype=np.float32)
    supports = {"src": [local, local + 1], "dst": [local + 2] * 2, "score": scores, "direct": directs, "total": scores, "rank": [2, 1]}
    items = trace.table("Item")
    place = items.schema.get_field_index("rationale")
    told = items.set_column(place, items.schema.field("rationale"), [["John got the book, so the book is his."] * items.num_rows])
    extra = {"Span": build_table("Span", spans), "SUPPORTS.Span.Span": build_table("SUPPORTS.Span.Span", supports), "Item": told}
    return replace(trace, tables={**trace.tables, **extra})


@pytest.fixture(scope="session")
def traces_of_browser() -> tuple[Trace, Trace]:
    story = reasoned(
        make_trace(
            1,
            text=STORY,
            n_outputs=5,
            n_prompt_tokens=14,
            items=[{"item_id": "story", "dataset": "tales"}],
            spans=False,
            extras=True,
            knockouts=True,
        )
    )
    long = make_trace(2, n_tokens=LONG, n_layers=4, n_heads=4, max_edges=4000)
    return story, long


@pytest.fixture(scope="session")
def store_of_browser(traces_of_browser: tuple[Trace, Trace], tmp_path_factory: pytest.TempPathFactory) -> Path:
    others = [make_trace(seed, n_outputs=2) for seed in (3, 4)]
    path = tmp_path_factory.mktemp("browser") / "graph.lbug"
    with open_store(path) as graph:
        graph.engine.load(bundle_of([*traces_of_browser, *others]), level="mechanism")
    return path


@pytest.fixture(scope="session")
def shown(store_of_browser: Path, traces_of_browser: tuple[Trace, Trace]) -> Iterator[Shown]:
    with serving("--store", store_of_browser) as served:
        yield Shown(served.url, *traces_of_browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@dataclass(slots=True)
class Watched:
    """What went wrong on a page."""

    problems: list[str] = field(default_factory=list)

    def watch(self, page: Page, url: str) -> None:
        """Note every error, and every request that leaves the server."""
        own = "willReadFrequently"  # what a test itself does when it looks at a drawing's pixels
        page.on("console", lambda m: self.problems.append(m.text) if m.type in ("error", "warning") and own not in m.text else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith((url, "blob:", "data:")) else self.problems.append(request.url))
        page.on("response", lambda answer: self.problems.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport={"width": 1380, "height": 860})
    opened.set_default_timeout(15_000)
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext, shown: Shown) -> Iterator[Page]:
    watched = Watched()
    opened = context.new_page()
    watched.watch(opened, shown.url)
    yield opened
    assert watched.problems == []
