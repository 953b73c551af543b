"""Who is let in, what bounds hold, and what errors and logs never say."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from tracestore.api import GraphStore
from tracestore.errors import BadInputError, QueryTimeoutError, StoreError, StoreUnavailableError
from tracestore.serve import settings as configuration
from tracestore.serve.middleware import BodyLimit, Places
from tracestore.serve.settings import ServeSettings, is_loopback, read_token

MakeClient = Callable[..., TestClient]
TOKEN = "0123456789abcdef-token"
SECRET = "the cat that nobody may read about"


def test_other_machines_need_a_token() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(BadInputError, match="token"):
            ServeSettings(store="-", host=host)
        assert ServeSettings(store="-", host=host, token=TOKEN).allowed_hosts is None


def test_a_token_comes_from_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o644)
    with pytest.raises(BadInputError, match="chmod 600"):
        read_token(path)
    path.chmod(0o600)
    assert read_token(path) == TOKEN
    for bad in ("short", "x" * 15, "two words but long enough", "ü" * 20):
        path.write_text(bad)
        with pytest.raises(BadInputError, match=str(configuration.SHORTEST_TOKEN)):
            read_token(path)
    with pytest.raises(BadInputError, match="cannot be read"):
        read_token(tmp_path / "missing")


def test_data_need_the_token_and_the_page_does_not(make_client: MakeClient) -> None:
    client = make_client(token=TOKEN, base_url="http://traces.example.org")
    for path in ("/api/traces", "/api/queries/stats", "/metrics", "/openapi.json", "/api/nothing"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert client.get(path, headers={"Authorization": f"Bearer {TOKEN[:-1]}"}).status_code == 401
        assert client.get(path, headers={"Authorization": f"Basic {TOKEN}"}).status_code == 401
        assert client.get(path, headers={"Authorization": f"bearer {TOKEN}"}).status_code != 401
    for path in ("/", "/healthz"):
        assert client.get(path).status_code == 200


def test_a_foreign_name_for_this_machine_is_refused(make_client: MakeClient) -> None:
    client = make_client()
    for host, status in (
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("localhost:8321", 200),
        ("[::1]:8321", 200),
        ("[::1", 400),
    ):
        assert client.get("/api/traces", headers={"Host": host}).status_code == status, host


def test_every_answer_carries_the_security_headers_and_none_opens_cors(make_client: MakeClient) -> None:
    client = make_client()
    for path in ("/", "/api/traces", "/api/nothing", "/api/outputs/x/heads", "/healthz"):
        headers = client.get(path, headers={"Origin": "https://evil.example"}).headers
        assert "'unsafe-inline'" not in headers["content-security-policy"]
        assert "script-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert not [name for name in headers if name.startswith("access-control")]
    asked = client.options("/api/traces", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"})
    assert asked.status_code == 405
    assert client.get("/api/traces").headers["cache-control"] == "no-store"


def test_cypher_is_off_unless_asked_for(make_client: MakeClient) -> None:
    assert make_client().post("/api/cypher", json={"statement": "RETURN 1 AS one"}).status_code == 403
    assert make_client(allow_cypher=True).post("/api/cypher", json={"statement": "RETURN 1 AS one"}).json()["rows"] == [{"one": 1}]


def test_rows_are_bounded_whatever_is_asked(make_client: MakeClient) -> None:
    client = make_client(max_rows=3, allow_cypher=True)
    for answer in (
        client.get("/api/queries/list_outputs", params={"k": 1_000_000_000}),
        client.get("/api/queries/list_outputs"),
        client.post("/api/cypher", json={"statement": "MATCH (t:Token) RETURN t.pos AS pos", "limit": 1000}),
        client.get("/api/traces", params={"limit": 100}),
    ):
        assert len(answer.json()["rows"]) == 3
        assert answer.json()["truncated"] is True


def test_bodies_are_bounded_whether_they_say_their_length_or_not(make_client: MakeClient) -> None:
    client = make_client(max_body_bytes=1000)
    body = json.dumps({"text": "x" * 2000})
    headers = {"Content-Type": "application/json"}
    assert client.post("/api/queries/search_text", content=body, headers=headers).status_code == 413

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 100):
            yield body[start : start + 100].encode()

    assert client.post("/api/queries/search_text", content=pieces(), headers=headers).status_code == 413
    assert client.post("/api/queries/search_text", json={"text": "cat"}).status_code == 200


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def statuses_of(sent: list[Message]) -> list[int]:
    return [message["status"] for message in sent if message["type"] == "http.response.start"]


def test_a_lying_length_is_refused() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    scope: Scope = {"type": "http", "method": "POST", "path": "/api", "headers": [(b"content-length", b"-5")]}
    asyncio.run(BodyLimit(never, 10)(scope, _nothing, send))
    assert statuses_of(sent) == [413]


def test_requests_wait_for_a_place_and_too_many_are_turned_away() -> None:
    finished: list[str] = []
    sent: dict[str, list[Message]] = {name: [] for name in "abc"}

    async def run() -> None:
        release = asyncio.Event()

        async def work(scope: Scope, receive: Receive, send: Send) -> None:
            await release.wait()
            finished.append(scope["name"])

        places = Places(work, places=1, most_waiting=1, patience_s=30.0)

        def ask(name: str) -> asyncio.Task[None]:
            async def send(message: Message) -> None:
                sent[name].append(message)

            return asyncio.ensure_future(places({"type": "http", "path": "/api/traces", "name": name}, _nothing, send))

        tasks = []
        for name in "abc":
            tasks.append(ask(name))
            for _ in range(5):
                await asyncio.sleep(0)  # lets it go as far as it can
        assert tasks[2].done()  # the place is taken and one waits: the third is turned away at once
        release.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert finished == ["a", "b"]
    assert statuses_of(sent["c"]) == [429]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError(SECRET), 500),
        (StoreError(SECRET), 503),
        (StoreUnavailableError("the store is busy"), 503),
        (QueryTimeoutError("the query took longer than 1 s"), 504),
    ],
)
def test_errors_say_nothing_that_is_not_ours(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, status: int
) -> None:
    def fail(self: GraphStore, *args: Any, **more: Any) -> Any:
        raise error

    client = make_client()
    monkeypatch.setattr(GraphStore, "run_named", fail)
    with caplog.at_level(logging.DEBUG):
        answer = client.post("/api/queries/search_text", json={"text": SECRET})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert "content-security-policy" in answer.headers
    logged = caplog.text
    for said in (answer.text, logged):
        assert SECRET not in said
        assert "Traceback" not in said
    if status == 500:
        assert "RuntimeError" in logged


def test_the_access_log_holds_routes_only(make_client: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    client = make_client()
    with caplog.at_level(logging.INFO, logger="tracestore.serve"):
        client.get("/api/queries/search_text", params={"text": SECRET})
        client.get(f"/api/traces/{SECRET}")
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("tracestore")]
    assert [line.rsplit(" ", 2)[0] for line in ours] == ["GET /api/queries/search_text 200", "GET /api/traces/{trace_id} 404"]


def test_a_request_that_ran_out_of_time_is_told_so(make_client: MakeClient, served_traces: list[Any]) -> None:
    answer = make_client(timeout_s=1e-9).get(f"/api/traces/{served_traces[0].trace_id}")
    assert answer.status_code in (429, 504)  # no time to wait for a place, or none left to ask
