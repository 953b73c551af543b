"""Every URL scheme on a server that speaks TLS and plain Bolt: with a certificate that nobody vouches for, and with one that is trusted."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.neo4j_server import TestServer, missing, own_server
from tests.support.store_graph import bundle_of
from tests.support.synthetic import make_traces
from tracestore.errors import StoreUnavailableError
from tracestore.store.neo4j.connection import SCHEMES
from tracestore.store.neo4j.local import LocalServer
from tracestore.store.neo4j.store import open_neo4j


def make_certificate(folder: Path) -> Path:
    """Make a key and a certificate for this machine that is signed by nobody else; give the certificate."""
    program = shutil.which("openssl")
    if program is None:
        missing("no certificate: openssl was not found", "openssl")
    folder.mkdir(parents=True)
    files = ["-keyout", str(folder / "private.key"), "-out", str(folder / "public.crt")]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    command = [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *names]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "public.crt"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServer]:
    home = tmp_path_factory.mktemp("tls") / "home"
    folder = home / "certificates"
    policy = {"enabled": "true", "base_directory": str(folder), "private_key": "private.key", "public_certificate": "public.crt"}
    settings = {f"dbms.ssl.policy.bolt.{name}": value for name, value in {**policy, "client_auth": "NONE"}.items()}

    def before(_: LocalServer) -> None:
        make_certificate(folder)

    with own_server(home, before=before, settings={**settings, "server.bolt.tls_level": "OPTIONAL"}) as started:
        yield started


def url_of(server: TestServer, scheme: str) -> str:
    return server.uri.replace("bolt://", f"{scheme}://")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_loads_and_reads(server: TestServer, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.local is not None
    monkeypatch.setenv("SSL_CERT_FILE", str(server.local.home / "certificates" / "public.crt"))
    (trace,) = make_traces(1, first_seed=SCHEMES.index(scheme))
    with open_neo4j(url_of(server, scheme), credentials=server.credentials) as store:
        assert store.load(bundle_of([trace])).loaded == (trace.trace_id,)
        assert trace.trace_id in store.ready()


@pytest.mark.parametrize("scheme", ["bolt+s", "neo4j+s"])
def test_a_certificate_that_nobody_vouches_for_is_refused(server: TestServer, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        open_neo4j(url_of(server, scheme), credentials=server.credentials)
