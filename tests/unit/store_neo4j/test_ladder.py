"""The ladder of test servers: the first rung that holds, a skip that says what was tried, a failure where Neo4j is required."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from tests.support import neo4j_server as ladder
from tracestore.errors import StoreUnavailableError
from tracestore.store.neo4j.connection import Credentials


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let the ladder be climbed anew, with what the run itself has found kept for the others."""
    monkeypatch.setattr(ladder, "climb", ladder.climb.__wrapped__)
    for name in ("NEO4J_URI", "TRACESTORE_REQUIRE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    return monkeypatch


def no_java(*_: object) -> NoReturn:
    raise StoreUnavailableError("needs Java 17 or 21 and Java none was found")


def test_without_any_rung_the_skip_says_what_was_tried(fresh: pytest.MonkeyPatch) -> None:
    fresh.setattr("tracestore.store.neo4j.local.java_for", no_java)
    with pytest.raises(pytest.skip.Exception) as skipped:
        ladder.shared_server()
    for part in ("NEO4J_URI is not set", "Docker does not answer", "needs Java 17 or 21"):
        assert part in str(skipped.value)


def test_where_neo4j_is_required_the_skip_is_a_failure(fresh: pytest.MonkeyPatch) -> None:
    fresh.setattr("tracestore.store.neo4j.local.java_for", no_java)
    fresh.setenv("TRACESTORE_REQUIRE", "browser,neo4j")
    with pytest.raises(pytest.fail.Exception, match="Docker does not answer"):
        ladder.shared_server()


def test_the_first_rung_that_holds_is_taken(fresh: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def rung(name: str, holds: bool) -> object:
        def climbed() -> ladder.TestServer | str:
            tried.append(name)
            return ladder.TestServer("bolt://127.0.0.1:1", Credentials("neo4j", "x", "neo4j"), name) if holds else f"not {name}"

        return climbed

    fresh.setattr(ladder, "RUNGS", (rung("one", False), rung("two", True), rung("three", True)))
    fresh.setattr(ladder, "server_version", lambda driver, database: "5.26.0")
    assert ladder.shared_server().rung == "two"
    assert tried == ["one", "two"]


def test_the_header_names_the_rung_before_anything_is_started(fresh: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fresh.setattr(ladder, "java_for", lambda release: Path("/jdk/bin/java"))
    fresh.setenv("TRACESTORE_CACHE", str(tmp_path))
    fresh.setenv("PATH", str(tmp_path))
    assert "Maven was not found" in ladder.expectation()
    (tmp_path / "neo4j" / ladder.VERSION / "lib").mkdir(parents=True)
    assert "a local process" in ladder.expectation()
    assert "jars cached" in ladder.expectation()
    fresh.setattr(ladder, "java_for", no_java)
    assert "none; NEO4J_URI is not set; Docker does not answer; needs Java" in ladder.expectation()
    fresh.setenv("NEO4J_URI", "bolt://127.0.0.1:7687")
    assert ladder.expectation() == "Neo4j tests: the server that NEO4J_URI names"
