"""Applications over small stores: one with random traces for each engine, and one on the embedded engine for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.conformance.engines import ENGINES
from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_trace
from tracestore.api import GraphStore, open_store
from tracestore.archive import Archive
from tracestore.model import Trace
from tracestore.serve.app import create_app
from tracestore.serve.settings import ServeSettings

HERE = "http://127.0.0.1:8321"
CAT = "the cat sat on the cat sat on the mat"
FACTS: list[dict[str, Any]] = [{"item_id": "a", "dataset": "facts", "split": "test", "tags": ["easy"]}]


@pytest.fixture(scope="session")
def served_traces() -> list[Trace]:
    """Traces with several outputs, two models, equal times, paths, and one without mechanism."""
    return [
        make_trace(1, text=CAT, n_outputs=4, items=FACTS, extras=True),
        make_trace(2, text="Mary gave John a book", n_outputs=2, model_id="other", n_heads=3),
        make_trace(3, n_tokens=9, items=[]),
        make_trace(4, text="x y", mechanism=False),
        make_trace(4, text="z y", mechanism=False),
    ]


@pytest.fixture(scope="module", params=sorted(ENGINES))
def graph(request: pytest.FixtureRequest, served_traces: list[Trace], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GraphStore]:
    with ENGINES[request.param](tmp_path_factory.mktemp(request.param)) as store:
        store.load(bundle_of(served_traces), level="mechanism")
        yield GraphStore(store)


@pytest.fixture(scope="module")
def client(graph: GraphStore) -> TestClient:
    """A client of an app on one engine; the app's end, which would close the store, is left out."""
    return TestClient(create_app(graph, ServeSettings(store="-", allow_cypher=True, max_rows=500)), base_url=HERE)


@pytest.fixture(scope="session")
def store_path(served_traces: list[Trace], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "graph.lbug"
    with open_store(path) as opened:
        opened.engine.load(bundle_of(served_traces), level="mechanism")
    return path


@pytest.fixture(scope="session")
def archive_path(served_traces: list[Trace], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "archive"
    Archive(path).write([*served_traces, make_trace(5, text="not loaded")])
    return path


@pytest.fixture
def make_client(store_path: Path) -> Iterator[Callable[..., TestClient]]:
    """Make clients of apps on the embedded engine with settings of their own."""
    opened: list[GraphStore] = []

    def make(*, base_url: str = HERE, **settings: Any) -> TestClient:
        opened.append(open_store(store_path, read_only=True))
        return TestClient(create_app(opened[-1], ServeSettings(store="-", **settings)), base_url=base_url)

    yield make
    for graph in opened:
        graph.close()
