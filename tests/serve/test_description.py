"""The API is what it says it is: random requests made from its own description never find a fault."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance
from starlette.testclient import TestClient

from tests.serve.conftest import HERE
from tracestore.api import open_store
from tracestore.query import catalogue
from tracestore.serve.app import create_app
from tracestore.serve.settings import ServeSettings

EXAMPLES = int(os.environ.get("TRACESTORE_API_EXAMPLES", "3"))
"""Requests of each kind for each operation; a long run sets more."""

TOKEN = "0123456789abcdef"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def described(store_path: Path, archive_path: Path) -> Iterator[schemathesis.BaseSchema]:
    with open_store(store_path, read_only=True) as graph:
        app = create_app(graph, ServeSettings(store="-", archive=str(archive_path), allow_cypher=True, max_rows=200, token=TOKEN))
        yield schemathesis.openapi.from_asgi("/openapi.json", app, headers=HEADERS)


def test_random_requests_find_no_fault(described: schemathesis.BaseSchema) -> None:
    operations: list[Any] = [found.ok() for found in described.get_all_operations()]  # type: ignore[union-attr]  # it is described well
    assert len(operations) > 2 * len(catalogue())
    for operation in operations:
        often = "cypher" in operation.path
        _try(operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE), often)
        with suppress(Unsatisfiable):  # some operations take nothing that could be wrong
            _try(operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE), often)


def _try(cases: SearchStrategy[Any], often: bool) -> None:
    @settings(max_examples=3 * EXAMPLES if often else EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def run(case: Any) -> None:
        case.call_and_validate(checks=CHECKS, headers=HEADERS)

    run()


def test_the_description_is_complete(store_path: Path) -> None:
    with open_store(store_path, read_only=True) as graph:
        app = create_app(graph, ServeSettings(store="-"))
        paths = TestClient(app, base_url=HERE).get("/openapi.json").json()["paths"]
    for name, found in catalogue().items():
        asked = {parameter["name"] for parameter in paths[f"/api/queries/{name}"]["get"]["parameters"]}
        assert asked == {parameter.name for parameter in found.header.parameters}
    for path, operations in paths.items():
        for method, operation in operations.items():
            assert operation.get("summary"), (path, method)
            assert operation["responses"]["200"]["content"], (path, method)
            assert {"400", "401", "503"} <= set(operation["responses"])
