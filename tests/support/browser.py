"""A real browser for tests and pictures: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@cache
def find_browser() -> str | None:
    """Give the path of a browser: the one that TRACESTORE_CHROMIUM names, or one on the search path."""
    return os.environ.get("TRACESTORE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def report() -> str | None:
    """Say which browser the tests used, or that there was none, once some test has asked."""
    if find_browser.cache_info().currsize == 0:
        return None
    path = find_browser()
    return f"browser tests ran in {path}" if path else f"browser tests did not run: {_missing()}"


def _missing() -> str:
    return f"no browser: none of {', '.join(NAMES)} is installed and TRACESTORE_CHROMIUM is not set"


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start the browser; skip the test where there is none, or fail it where one is required."""
    from playwright.sync_api import sync_playwright

    path = find_browser()
    if path is None:
        if "browser" in os.environ.get("TRACESTORE_REQUIRE", "").split(","):
            pytest.fail(_missing())
        pytest.skip(_missing())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()
