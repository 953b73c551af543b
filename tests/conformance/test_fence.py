"""The fence around ad-hoc Cypher on real engines: hostile statements never reach them, innocent ones are answered, nothing changes.

The hostile ones are also sent to the server itself in a read session, past the token scan: what it answers all the same is why the scan
is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.neo4j_server import TestServer
from tests.support.statements import BOTH, HOSTILE, LADYBUG_ONLY, LET_THROUGH, NEO4J_ONLY
from tests.support.store_counts import content_of
from tracestore.errors import QueryError, TracestoreError
from tracestore.query import check_read_only, run_cypher
from tracestore.store.base import Limits, Result, Store
from tracestore.store.neo4j.connection import make_driver

QUICK = Limits(timeout_s=10.0, max_rows=5)
OWN = {"ladybug": LADYBUG_ONLY, "neo4j": NEO4J_ONLY}


class Untouched:
    """A store that must not be asked anything."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def run(self, cypher: str, params: Mapping[str, Any], limits: Limits) -> Result:
        raise AssertionError(f"this reached the engine: {cypher}")


def test_hostile_statements_never_reach_an_engine(store: Store) -> None:
    accepted = []
    guarded: Any = Untouched(store)
    for text in HOSTILE:
        try:
            run_cypher(guarded, text, limits=QUICK)
        except QueryError:
            continue
        except AssertionError:
            pass
        accepted.append(text)
    assert accepted == []


def test_innocent_statements_are_answered_and_change_nothing(store: Store, engine: str) -> None:
    before = content_of(store)
    refused = {}
    for text in (*BOTH, *OWN[engine]):
        try:
            run_cypher(store, text, limits=QUICK)
        except TracestoreError as error:
            refused[text] = str(error)
    assert refused == {}
    assert content_of(store) == before


def test_rows_are_capped_and_time_is_bounded(store: Store) -> None:
    result = run_cypher(store, "MATCH (t:Token) RETURN t.pos AS pos", limits=Limits(max_rows=2))
    assert (result.table.num_rows, result.truncated) == (2, True)
    slow = (
        "MATCH (a:Token), (b:Token), (c:Token), (d:Token), (e:Token) WHERE a.pos + b.pos + c.pos + d.pos + e.pos < 0 RETURN count(*) AS n"
    )
    with pytest.raises(QueryError, match=r"0\.3 s"):
        run_cypher(store, slow, limits=Limits(timeout_s=0.3))


@pytest.fixture(scope="module")
def server(store: Store, engine: str, request: pytest.FixtureRequest) -> TestServer:
    """The real Neo4j, holding the module's store."""
    if engine != "neo4j":
        pytest.skip("asked of the server only")
    found: TestServer = request.getfixturevalue("neo4j_server")
    return found


def test_what_the_server_itself_would_let_through(store: Store, server: TestServer) -> None:
    before = content_of(store)
    through = set()
    for text in HOSTILE:
        try:
            store.run(text, {}, QUICK)
        except TracestoreError:
            continue
        through.add(text)
    assert content_of(store) == before  # the read session itself holds against every write
    (version,) = server.run("CALL dbms.components() YIELD versions RETURN versions[0]")[0]
    if version.startswith("5.26"):
        assert through == LET_THROUGH
    assert {"SHOW SETTINGS", "CALL dbms.killConnections(['bolt-1'])", "TERMINATE TRANSACTIONS 'neo4j-transaction-1'"} <= through


JUNK = st.sampled_from(
    [
        *(
            " ",
            "\n",
            "\t",
            "/* ' */",
            "/* SET n.x = 1 */",
            '// " SET n.x = 1\n',
            "'SET'",
            '"\\" SET n.x = 1"',
            "`SET n.x = 1`",
            "\\u0053ET n.x = 1",
        ),
        *("'\\\\'", "'\\''", "/**/", "//", "/*", "*/", "'", '"', "`", "\\", ";", "\u2028", "\r", "\u00a0", "\ufeff", "\x0b", "''", '""'),
    ]
)
PIECES = st.sampled_from(
    ["MATCH (n:Trace)", "WITH n", "WHERE true", "SET n.x = 1", "DELETE n", "RETURN n", "RETURN 1 AS", "+", "n", "CALL { CREATE (:T) }"]
)


@pytest.fixture(scope="module")
def session(server: TestServer) -> Iterator[Any]:
    with make_driver(server.uri, server.credentials) as driver, driver.session(database=server.credentials.database) as opened:
        yield opened


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(parts=st.lists(st.one_of(PIECES, JUNK), min_size=1, max_size=7), end=st.sampled_from(["RETURN n", "RETURN 1", "SET n.x = 1"]))
def test_what_the_scan_accepts_reads_by_the_servers_own_parser(session: Any, parts: list[str], end: str) -> None:
    """Whatever hides between comments, quotes and escapes: EXPLAIN says that it only reads, or that it is no Cypher at all."""
    from neo4j.exceptions import Neo4jError

    text = "MATCH (n:Trace) " + "".join(f"{part} " if part.isascii() and part[0].isalpha() else part for part in parts) + " " + end
    try:
        check_read_only(text)
    except QueryError:
        return
    try:
        summary = session.run(f"EXPLAIN {text}").consume()
    except Neo4jError:
        return
    assert summary.query_type == "r", text
