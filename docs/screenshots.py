"""Make the pictures of the page for the guide: `python -m docs.screenshots` (or `make screenshots`).

The small real model traces the demo's prompts and those of `screenshots.jsonl`; the store that comes of it is served, and a browser looks.
`--store FILE` takes a store that holds them already.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.support.browser import open_browser
from tests.support.http_server import serving
from tracestore.api import open_store
from tracestore.archive import Archive

if TYPE_CHECKING:
    from playwright.sync_api import Page

HERE: Final = Path(__file__).parent
PICTURES: Final = HERE / "pictures"
ITEMS: Final = HERE / "screenshots.jsonl"
MEASURED: Final = "object-mary"
"""The item whose sources are also knocked out."""
SIZE: Final = {"width": 1380, "height": 860}

Act = Callable[["Page"], object]


def make_store(folder: Path) -> Path:
    """Trace and load what the pictures show."""
    demo, store = folder / "demo", folder / "demo" / "graph.lbug"
    commands = (
        ("demo", "--output", demo),
        ("trace", "--items", ITEMS, "--model", "demo", "--method", "secant", "--archive", demo / "archive"),
    )
    for command in commands:
        _run(*command)
    _run("verify", _output_of(demo / "archive", MEASURED), "--archive", demo / "archive", "--model", "demo", "--top", 6)
    _run("load", "--archive", demo / "archive", "--store", store, "--level", "mechanism")
    return store


def _run(*command: object) -> None:
    subprocess.run([sys.executable, "-m", "tracestore", *map(str, command)], check=True, stdout=subprocess.DEVNULL)


def _output_of(archive: Path, item_id: str) -> str:
    found = (trace for trace in Archive(archive).read_traces() if item_id in trace.table("Item")["item_id"].to_pylist())
    return next(found).outputs[-1].output_id


def trace_ids(store: Path) -> dict[str, str]:
    """Give the newest trace of every item."""
    with open_store(store, read_only=True) as graph:
        rows = graph.query("list_traces", k=1000).to_pylist()
    return {row["item_id"]: row["trace_id"] for row in reversed(rows)}


def click(selector: str, number: int = 0) -> Act:
    """Give an act that clicks on the n-th element (from the end where negative) and takes the pointer away."""

    def act(page: Page) -> None:
        page.locator(selector).nth(number).click()
        page.mouse.move(2, 2)

    return act


def pictures(ids: Mapping[str, str]) -> dict[str, tuple[str, str, Act | None]]:
    """Give name -> (address, light or dark, what is done before the picture is taken)."""
    return {
        "traces": ("", "light", None),
        "trace": (f"trace/{ids['chat-germany']}", "light", click(".token.explained", 3)),
        "trace-long": (f"trace/{ids['harbour']}?measure=total", "light", None),
        "documents": (f"trace/{ids['library-hours']}?measure=total", "light", None),
        "trace-dark": (f"trace/{ids['object-mary']}", "dark", None),
        "mechanism": (f"mechanism/{ids['object-mary']}?path=1", "light", None),
        "mechanism-node": (f"mechanism/{ids['object-mary']}", "dark", click("aside .quiet:has-text('L23.H0')")),
        "heads": (f"heads/{ids['object-mary']}", "light", click(".cell[data-layer='23'][data-head='0']")),
        "across": ("across/drivers_across?text=+Paris", "light", None),
        "compare": (f"compare?a={ids['object-mary']}&b={ids['object-john']}", "light", None),
        "reasoning": (f"reasoning/{ids['apples']}", "light", click(".steps .node", -1)),
    }


def take(store: Path) -> None:
    """Take every picture."""
    PICTURES.mkdir(exist_ok=True)
    with serving("--store", store) as served, open_browser() as browser:
        for name, (address, scheme, act) in pictures(trace_ids(store)).items():
            context = browser.new_context(viewport=SIZE, color_scheme="dark" if scheme == "dark" else "light")  # type: ignore[arg-type]
            page = context.new_page()
            page.goto(f"{served.url}/#/{address}")
            page.locator("main h1").wait_for()
            page.wait_for_load_state("networkidle")
            if act is not None:
                act(page)
                page.wait_for_load_state("networkidle")
            page.wait_for_timeout(300)  # colours fade in
            page.screenshot(path=PICTURES / f"{name}.png")
            context.close()


def main() -> None:
    """Make a store unless one is named, then take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="a store that holds the traces already")
    store = parser.parse_args().store
    if store is not None:
        take(store)
        return
    with tempfile.TemporaryDirectory() as folder:
        take(make_store(Path(folder)))


if __name__ == "__main__":
    main()
