"""What a server or its URL is refused for: the command says what to change, leaves with its code, and nothing was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import run
from tests.support.neo4j_server import TestServer
from tests.support.synthetic import make_traces
from tracestore.archive import Archive
from tracestore.store.neo4j import connection


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path / "archive")
    archive.write(make_traces(1))
    return archive


@pytest.fixture
def server(neo4j_server: TestServer, monkeypatch: pytest.MonkeyPatch) -> TestServer:
    """The server of this run, emptied, and the environment that leads to it."""
    neo4j_server.empty()
    monkeypatch.setenv("TRACESTORE_ALLOW_PLAIN", "1")
    for name, value in neo4j_server.environment.items():
        monkeypatch.setenv(name, value)
    return neo4j_server


def assert_refused(archive: Archive, server: TestServer, url: str, code: int, *words: str) -> None:
    done = run("load", "--archive", archive.path, "--store", url, "--json")
    assert done.code == code, done.err
    assert done.out == ""
    for word in words:
        assert word in done.err
    assert server.credentials.password not in done.err
    assert server.run("MATCH (n) WHERE NOT n:StoreMigration RETURN count(n)") == [[0]]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("NEO4J_PASSWORD", "wrong", "refused the credentials"),
        ("NEO4J_USERNAME", "nobody", "refused the credentials"),
        ("NEO4J_PASSWORD", "", "no password for Neo4j"),
        ("NEO4J_DATABASE", "elsewhere", "no database of the name"),
    ],
)
def test_wrong_credentials_and_databases(
    archive: Archive, server: TestServer, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    assert_refused(archive, server, server.uri, 5, words, name)


@pytest.mark.parametrize("scheme", ["bolt+s", "bolt+ssc", "neo4j+s", "neo4j+ssc"])
def test_a_server_without_tls_is_not_spoken_to_in_plain_text(archive: Archive, server: TestServer, scheme: str) -> None:
    assert_refused(archive, server, server.uri.replace("bolt://", f"{scheme}://"), 5, "cannot be reached")


def test_a_plain_url_off_this_machine_needs_a_word(archive: Archive, server: TestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRACESTORE_ALLOW_PLAIN")
    assert_refused(archive, server, "bolt://192.0.2.1:7687", 3, "unencrypted", "bolt+s://", "TRACESTORE_ALLOW_PLAIN=1")


def test_nobody_listens(archive: Archive, server: TestServer) -> None:
    assert_refused(archive, server, "bolt://127.0.0.1:1", 5, "cannot be reached", "is it running")


def test_an_unsupported_version(archive: Archive, server: TestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    told = connection.check_version
    monkeypatch.setattr(connection, "check_version", lambda _: told("4.4.40"))  # what an old server would answer
    assert_refused(archive, server, server.uri, 5, "Neo4j 4.4.40 is not supported", "5.26")


@pytest.mark.parametrize("scheme", ["bolt", "neo4j"])
def test_both_plain_schemes_are_spoken(archive: Archive, server: TestServer, scheme: str) -> None:
    done = run("load", "--archive", archive.path, "--store", server.uri.replace("bolt://", f"{scheme}://"), "--json")
    assert (done.code, done.json["loaded"]) == (0, 1), done.err
