"""Which URLs, credentials and servers are taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracestore.errors import BadInputError, ResourceError, StoreError, StoreUnavailableError, StoreVersionError
from tracestore.store.neo4j.connection import Credentials, check_url, check_version, read_credentials, translate


@pytest.mark.parametrize(
    "url",
    [
        "bolt://127.0.0.1:7687",
        "neo4j://localhost",
        "bolt://[::1]:7687",
        "bolt://127.9.9.9:1",
        "neo4j+s://db.example.org",
        "bolt+ssc://10.0.0.5:7687",
    ],
)
def test_encrypted_or_local_urls_are_taken(url: str) -> None:
    assert check_url(url + "/", allow_plain=False) == url


@pytest.mark.parametrize(
    "url", ["bolt://10.0.0.5:7687", "neo4j://db.example.org", "bolt://localhost.example.org", "bolt://0.0.0.0", "bolt://127.0.0.1.nip.io"]
)
def test_a_plain_url_off_this_machine_needs_a_word(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRACESTORE_ALLOW_PLAIN", raising=False)
    with pytest.raises(BadInputError, match="unencrypted"):
        check_url(url)
    monkeypatch.setenv("TRACESTORE_ALLOW_PLAIN", "1")
    assert check_url(url) == url
    with pytest.raises(BadInputError, match="unencrypted"):
        check_url(url, allow_plain=False)


@pytest.mark.parametrize("url", ["http://localhost:7474", "bolt://", "localhost:7687", "bolt://localhost:notaport", "bolt://[::1"])
def test_what_is_no_server_url_is_refused(url: str) -> None:
    with pytest.raises(BadInputError, match="URL"):
        check_url(url)


@pytest.mark.parametrize("url", ["bolt://neo4j:hunter2@localhost", "neo4j+s://neo4j:hunter2@db.example.org", "bolt://:hunter2@localhost"])
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(BadInputError, match="credentials") as refused:
        check_url(url)
    assert "hunter2" not in str(refused.value)


def test_paths_and_parameters_are_refused() -> None:
    for url in ("bolt://localhost/graph", "bolt://localhost?writers=2"):
        with pytest.raises(BadInputError, match="NEO4J_DATABASE"):
            check_url(url)


def test_credentials_come_from_the_environment(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("from a file\n", encoding="utf-8")
    assert read_credentials({"NEO4J_PASSWORD": "p"}) == Credentials("neo4j", "p", "neo4j")
    given = {"NEO4J_PASSWORD_FILE": str(secret), "NEO4J_USERNAME": "me", "NEO4J_DATABASE": "graph"}
    assert read_credentials(given) == Credentials("me", "from a file", "graph")
    assert read_credentials({**given, "NEO4J_PASSWORD": "p"}).password == "p"
    assert "from a file" not in repr(read_credentials(given))
    with pytest.raises(StoreError, match="no password"):
        read_credentials({})
    with pytest.raises(StoreError, match="cannot be read"):
        read_credentials({"NEO4J_PASSWORD_FILE": str(tmp_path / "nothing")})


def refusal(version: str) -> str:
    """Say why a version is refused; empty for one that passes."""
    try:
        check_version(version)
    except StoreVersionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("version", ["5.26.0", "5.26.30", "5.27.1", "2025.01.0", "2026.08.1"])
def test_supported_versions(version: str) -> None:
    assert refusal(version) == ""


@pytest.mark.parametrize("version", ["4.4.40", "5.25.1", "5.3.0", "2027.01.0", "2024.12.0", "6.0.0", "", "unknown"])
def test_other_versions_are_refused(version: str) -> None:
    assert "not supported" in refusal(version)


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        ("Neo.ClientError.Security.Unauthorized", StoreError, False),
        ("Neo.ClientError.Database.DatabaseNotFound", StoreError, False),
        ("Neo.TransientError.General.MemoryPoolOutOfMemoryError", ResourceError, False),
        ("Neo.TransientError.Transaction.DeadlockDetected", StoreUnavailableError, True),
        ("Neo.DatabaseError.Transaction.TransactionCommitFailed", StoreUnavailableError, True),
        ("Neo.ClientError.Schema.ConstraintValidationFailed", StoreError, False),
    ],
)
def test_server_errors_become_ours(code: str, kind: type[Exception], retryable: bool) -> None:
    from neo4j.exceptions import Neo4jError

    error = translate(Neo4jError._hydrate_neo4j(code=code, message="the prompt was: secret"), "a batch")
    assert type(error) is kind
    assert error.retryable is retryable
    assert "secret" not in str(error)
