"""A real Neo4j for the tests, by the first rung that holds:

1. NEO4J_URI (with NEO4J_USERNAME, NEO4J_PASSWORD or NEO4J_PASSWORD_FILE) names a server: use it. Tests empty its database, so one that
   holds anything but what tests left there is refused.
2. Docker answers: a container with a pinned tag, by testcontainers.
3. Java and the jars (or Maven, which fetches them): a process on this machine.
4. Else skip, saying what was tried; with TRACESTORE_REQUIRE=neo4j fail instead. What merely speaks Bolt never counts as Neo4j.

One server serves the whole run; it ends with it.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pytest

from tracestore.errors import StoreError, TracestoreError
from tracestore.store.neo4j.connection import Credentials, make_driver, read_credentials, server_version
from tracestore.store.neo4j.jars import cache_folder, fetch_jars, java_for, release_of
from tracestore.store.neo4j.local import LocalServer, Sizes
from tracestore.store.neo4j.store import Neo4jStore, open_neo4j
from tracestore.store.neo4j.writers import LoadSettings

IMAGE = "neo4j:5.26.30-community"
VERSION = os.environ.get("TRACESTORE_TEST_NEO4J", "5.26.30")
TRANSACTION_MEMORY = "24m"
"""Small enough for a test to reach it."""

QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""A test server lives for a minute: the first compiler is enough, and it leaves the processors to the tests."""

SIZES = Sizes("512m", "128m", {"db.memory.transaction.max": TRANSACTION_MEMORY}, QUICK_START)
"""The local process of a run. Whoever kills it starts it again with these."""


@dataclass(frozen=True, slots=True)
class TestServer:
    """A server that tests may fill and empty."""

    __test__ = False

    uri: str
    credentials: Credentials
    rung: str
    local: LocalServer | None = None

    def open(self, *, read_only: bool = False, settings: LoadSettings | None = None, patience_s: float = 30.0) -> Neo4jStore:
        """Open the store as it is."""
        return open_neo4j(self.uri, read_only=read_only, credentials=self.credentials, settings=settings, patience_s=patience_s)

    def open_empty(self, *, settings: LoadSettings | None = None) -> Neo4jStore:
        """Open the store without any data; constraints stay."""
        self.empty()
        return self.open(settings=settings)

    def run(self, cypher: str, **params: Any) -> list[list[Any]]:
        """Run any statement at all."""
        with make_driver(self.uri, self.credentials) as driver, driver.session(database=self.credentials.database) as session:
            return [list(record.values()) for record in session.run(cypher, params)]

    def empty(self) -> None:
        """Delete everything but the record of migrations."""
        from neo4j.exceptions import TransientError

        for statement, bound in (
            ("MATCH ()-[r]->() WITH r LIMIT $bound DELETE r RETURN count(*)", 5000),
            ("MATCH (n) WHERE NOT n:StoreMigration WITH n LIMIT $bound DELETE n RETURN count(*)", 2000),
        ):
            deleted = 1
            while deleted:  # in small transactions: their memory is bounded
                try:
                    deleted = self.run(statement, bound=bound)[0][0]
                except TransientError:
                    bound = max(100, bound // 2)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead a child process here."""
        values = {"NEO4J_USERNAME": self.credentials.username, "NEO4J_DATABASE": self.credentials.database}
        return {**values, "NEO4J_URI": self.uri, "NEO4J_PASSWORD": self.credentials.password}


def _named() -> TestServer | str:
    uri = os.environ.get("NEO4J_URI")
    if not uri:
        return "NEO4J_URI is not set"
    server = TestServer(uri, read_credentials(), f"the server that NEO4J_URI names ({uri})")
    foreign = server.run("MATCH (n) WHERE NOT n:StoreMigration RETURN count(n)")[0][0]
    marked = server.run("MATCH (m:StoreMigration {version: -1}) RETURN count(m)")[0][0]
    if foreign and not marked:
        raise StoreError(f"the database at {uri} holds data, and tests empty it: set NEO4J_URI to a server whose database is empty")
    server.run("MERGE (m:StoreMigration {version: -1}) SET m.name = 'used by tests: emptied at any time'")
    return server


def docker_listens() -> bool:
    """Does something accept connections where Docker should be? Asked by hand: the client leaves sockets open when nobody does."""
    host = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    family, address = (socket.AF_UNIX, host.path) if host.scheme == "unix" else (socket.AF_INET, (host.hostname, host.port or 2375))
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        return probe.connect_ex(address) == 0


def _container() -> TestServer | str:
    try:
        from testcontainers.community.neo4j import Neo4jContainer
    except ImportError:
        return "testcontainers is not installed"
    if not docker_listens():
        return "Docker does not answer"
    password = secrets.token_hex(16)
    container = Neo4jContainer(IMAGE, password=password, username="neo4j")
    container.with_env("NEO4J_server_memory_heap_max__size", "512m").with_env("NEO4J_db_memory_transaction_max", TRANSACTION_MEMORY)
    container.start()
    atexit.register(container.stop)
    return TestServer(container.get_connection_url(), Credentials("neo4j", password, "neo4j"), f"a container ({IMAGE})")


def _process() -> TestServer | str:
    home = Path(tempfile.mkdtemp(prefix="tracestore-neo4j-"))
    local = LocalServer(home, VERSION, tied=True)
    try:
        running = local.start(sizes=SIZES)
    except TracestoreError as error:
        shutil.rmtree(home, ignore_errors=True)
        return f"a local process: {error}"

    def end() -> None:
        local.kill()
        shutil.rmtree(home, ignore_errors=True)

    atexit.register(end)
    password = running.password_file.read_text(encoding="utf-8").strip()
    return TestServer(running.uri, Credentials("neo4j", password, "neo4j"), f"a local process (Neo4j {running.version})", local)


@contextmanager
def own_server(
    home: Path, *, before: Callable[[LocalServer], None] | None = None, settings: Mapping[str, str] | None = None
) -> Iterator[TestServer]:
    """Start a local process of the test's own, whatever the rung of the others; `before` is called while it is still down.

    Skips (or fails, where Neo4j is required) when there is no Java or there are no jars.
    """
    local = LocalServer(home, VERSION, tied=True)
    try:
        fetch_jars(local.release.version)
        java_for(local.release)
    except TracestoreError as error:
        missing(f"no local Neo4j: {error}")
    try:
        if before is not None:
            before(local)
        running = local.start(sizes=Sizes("512m", "128m", settings or {}, QUICK_START))
        password = running.password_file.read_text(encoding="utf-8").strip()
        yield TestServer(running.uri, Credentials("neo4j", password, "neo4j"), "a local process of the test's own", local)
    finally:
        local.kill()
        shutil.rmtree(home, ignore_errors=True)


RUNGS: tuple[Callable[[], TestServer | str], ...] = (_named, _container, _process)


def expectation() -> str:
    """Say, without starting anything, on which rung this run will stand, and why not on those above it."""
    if os.environ.get("NEO4J_URI"):
        return "Neo4j tests: the server that NEO4J_URI names"
    if docker_listens():
        return f"Neo4j tests: a container ({IMAGE}); NEO4J_URI is not set"
    above = "NEO4J_URI is not set; Docker does not answer"
    try:
        java = java_for(release_of(VERSION))
    except TracestoreError as error:
        return f"Neo4j tests: none; {above}; {error}"
    cached = (cache_folder() / VERSION / "lib").is_dir()
    if not cached and shutil.which("mvn") is None:
        return f"Neo4j tests: none; {above}; its jars are not in the cache and Maven was not found"
    return f"Neo4j tests: a local process (Neo4j {VERSION}, {java}, jars {'cached' if cached else 'to be fetched'}); {above}"


@cache
def climb() -> TestServer | str:
    """Give the server of this run, or what was tried."""
    tried = []
    for rung in RUNGS:
        found = rung()
        if isinstance(found, TestServer):
            with make_driver(found.uri, found.credentials) as driver:
                server_version(driver, found.credentials.database)  # refuses look-alikes
            return found
        tried.append(found)
    return "no Neo4j: " + "; ".join(tried)


def shared_server() -> TestServer:
    """Give the server of this run; skip the test when there is none, or fail it where one is required."""
    found = climb()
    if not isinstance(found, TestServer):
        missing(found)
    return found


def missing(reason: str, what: str = "neo4j") -> NoReturn:
    """Skip the test, or fail it where `what` is required: TRACESTORE_REQUIRE names such things, with commas."""
    if what in os.environ.get("TRACESTORE_REQUIRE", "").split(","):
        pytest.fail(reason)
    pytest.skip(reason)


def report() -> str | None:
    """Say on which rung the run stood, once some test has asked."""
    if climb.cache_info().currsize == 0:
        return None
    found = climb()
    return f"Neo4j tests ran on {found.rung}" if isinstance(found, TestServer) else f"Neo4j tests did not run: {found}"
