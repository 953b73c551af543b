"""What every test may ask for, and what a run says at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.browser import report as report_browser
from tests.support.neo4j_server import TestServer, expectation, report, shared_server

if TYPE_CHECKING:
    from tracestore.evaluate.suites.pointer_chase_model import TrainedChase


@pytest.fixture(scope="session")
def neo4j_server() -> TestServer:
    """The real Neo4j of this run."""
    return shared_server()


@pytest.fixture(scope="session")
def chase() -> TrainedChase:
    """A small model trained on the pointer chase, with its checkpoints."""
    from tests.support.small_chase import small_chase

    return small_chase()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what drives the browser last: it keeps an event loop running in this thread, beside which no other can start."""
    items.sort(key=lambda item: "browser" in item.path.parts)


def pytest_report_header() -> str:
    """Name the rung that the Neo4j tests will stand on."""
    return expectation()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the rung that the Neo4j tests stood on, and the browser."""
    for line in (report(), report_browser()):
        if line is not None:
            terminalreporter.write_line(line)
