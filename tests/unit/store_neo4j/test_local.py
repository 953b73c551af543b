"""The local server's files and its search for Java; the server itself runs in the integration tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.neo4j_server import TestServer
from tracestore.errors import StoreUnavailableError
from tracestore.store.neo4j import jars, local
from tracestore.store.neo4j.local import LocalServer, Sizes, main


def make_java(home: Path, version: str) -> Path:
    (home / "bin").mkdir(parents=True)
    program = home / "bin" / "java"
    program.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    program.chmod(0o755)
    (home / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n', encoding="utf-8")
    return home


def test_java_is_found_by_the_environment_and_beside_what_was_found(tmp_path: Path) -> None:
    old, new = make_java(tmp_path / "jdks" / "eight", "1.8.0_402"), make_java(tmp_path / "jdks" / "new", "25.0.1")
    chosen = make_java(tmp_path / "mine", "17.0.2")
    assert jars.find_javas({"JAVA_HOME": str(old), "PATH": ""}) == {8: old, 25: new}
    assert jars.find_javas({"JAVA_HOME_17_X64": str(chosen), "PATH": str(new / "bin")})[17] == chosen
    assert jars.find_javas({"JAVA_TOOL_OPTIONS": str(old), "PATH": str(tmp_path)}) == {}


def test_a_missing_java_says_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "find_javas", lambda: {11: Path("/nowhere")})
    with pytest.raises(StoreUnavailableError, match="needs Java 17 or 21 and Java 11 was found"):
        jars.java_for(jars.release_of("5.26.30"))
    with pytest.raises(StoreUnavailableError, match="was not tested"):
        jars.release_of("4.4.0")


def test_missing_jars_without_maven_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRACESTORE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreUnavailableError, match="Maven"):
        jars.fetch_jars("5.26.30")


def test_a_failed_fetch_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    maven = tmp_path / "bin" / "mvn"
    maven.parent.mkdir()
    maven.write_text("#!/bin/sh\n/bin/mkdir -p made/lib; echo no network; exit 1\n", encoding="utf-8")
    maven.chmod(0o755)
    monkeypatch.setenv("TRACESTORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(maven.parent))
    with pytest.raises(StoreUnavailableError, match="no network"):
        jars.fetch_jars("5.26.30")
    assert {path.name for path in (tmp_path / "cache" / "neo4j").iterdir()} <= {"5.26.30.lock"}


def test_a_stale_note_counts_for_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = LocalServer(tmp_path / "home")
    server.home.mkdir()
    note = server.home / "server.json"
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        pass
    for pid in (gone.pid, os.getpid()):  # a process that ended; another program that has the number now
        note.write_text(json.dumps({"pid": pid, "port": 1, "version": "5.26.30"}), encoding="utf-8")
        assert server.status() is None
        assert not server.stop()
    for text in ("", "{", "[]", '{"pid": "x"}'):
        note.write_text(text, encoding="utf-8")
        assert server.status() is None
    assert main(["status", "--home", str(server.home)]) == 5
    assert "not running" in capsys.readouterr().err


def test_a_server_that_cannot_be_noted_is_not_left_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for Java: the fault lies between its start and the first answer."""
    java = tmp_path / "java"
    java.write_text('#!/bin/sh\ncase "$*" in *set-initial-password*) exit 0;; esac\nwhile :; do sleep 0.2; done\n', encoding="utf-8")
    java.chmod(0o755)
    monkeypatch.setattr(local, "fetch_jars", lambda _: tmp_path)
    monkeypatch.setattr(local, "java_for", lambda _: java)
    server = LocalServer(tmp_path / "home")
    (server.home / "server.json").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        server.start()
    assert server._process is not None
    assert server._process.returncode == -signal.SIGKILL


def test_the_configuration_is_private_and_on_loopback(tmp_path: Path) -> None:
    server = LocalServer(tmp_path / "home")
    server._configure(7688, Sizes("1g", "64m", {"db.transaction.timeout": "5s"}))
    path = server.home / "conf" / "neo4j.conf"
    assert path.stat().st_mode & 0o777 == 0o600
    assert server.home.stat().st_mode & 0o077 == 0
    settings = dict(line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines())
    assert settings["server.bolt.listen_address"] == "127.0.0.1:7688"
    assert settings["dbms.security.auth_enabled"] == "true"
    assert settings["server.http.enabled"] == "false"
    assert settings["db.transaction.timeout"] == "5s"


def test_the_running_server_hides_its_password(neo4j_server: TestServer) -> None:
    if neo4j_server.local is None:
        pytest.skip("asked of our own server only")
    running = neo4j_server.local.status()
    assert running is not None
    assert running.uri == neo4j_server.uri
    assert running.password_file.stat().st_mode & 0o777 == 0o600
    command = Path(f"/proc/{running.pid}/cmdline").read_bytes()
    assert neo4j_server.credentials.password.encode() not in command
    assert neo4j_server.local.start() == running  # a second start gives the first
