"""docker-compose.yml, really started: healthy, reachable with the password of its secret file, gone afterwards. Needs Docker."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.command_line import ROOT
from tests.support.neo4j_server import docker_listens
from tracestore.store.neo4j.connection import Credentials
from tracestore.store.neo4j.store import open_neo4j


def why_not() -> str | None:
    """Say what is missing for starting containers with compose."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    if not docker_listens():
        return "no Docker engine answers"
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
        return "docker has no compose plugin"
    return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_compose_file_starts_a_server_that_the_store_opens(tmp_path: Path) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(f"docker-compose.yml was NOT started: {reason}")
    bolt = free_port()
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    text = text.replace("127.0.0.1:7687:7687", f"127.0.0.1:{bolt}:7687").replace("127.0.0.1:7474:7474", f"127.0.0.1:{free_port()}:7474")
    (tmp_path / "docker-compose.yml").write_text(text, encoding="utf-8")
    (tmp_path / "secrets").mkdir()
    password = secrets.token_urlsafe(24)
    (tmp_path / "secrets" / "neo4j_auth").write_text(f"neo4j/{password}\n", encoding="utf-8")
    compose = ["docker", "compose", "--project-name", f"tracestore-test-{os.getpid()}"]
    try:
        up = subprocess.run([*compose, "up", "--detach", "--wait"], cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
        assert up.returncode == 0, up.stderr
        with open_neo4j(f"bolt://127.0.0.1:{bolt}", credentials=Credentials("neo4j", password, "neo4j")) as store:
            assert store.check().problems == ()
    finally:
        subprocess.run([*compose, "down", "--volumes"], cwd=tmp_path, capture_output=True, timeout=200, check=False)
