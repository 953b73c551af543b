"""docker-compose.yml: valid by the Compose Specification, and as safe as the docs say."""

from __future__ import annotations

from pathlib import Path

import pytest
from compose_spec import PyCompose

from tests.support.neo4j_server import IMAGE

FILE = Path(__file__).parents[3] / "docker-compose.yml"
TEXT = FILE.read_text(encoding="utf-8")


def test_the_file_obeys_the_compose_specification() -> None:
    PyCompose.from_yaml(TEXT).validate()
    with pytest.raises(ValueError, match="tests"):  # so the check does see what is wrong
        PyCompose.from_yaml(TEXT.replace("healthcheck:\n      test", "healthcheck:\n      tests"))


def test_the_service_is_pinned_private_and_bounded() -> None:
    document = PyCompose.from_yaml(TEXT).to_dict()
    service = document["services"]["neo4j"]
    assert service["image"] == IMAGE
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["secrets"] == list(document["secrets"]) == ["neo4j_auth"]
    assert "NEO4J_AUTH" not in service["environment"]  # the password is in the secret file only
    named = {volume.split(":")[0] for volume in service["volumes"]}
    assert named == set(document["volumes"])
    sizes = {name: int(value.rstrip("g")) for name, value in service["environment"].items() if "memory" in name}
    heap, pages = sizes["NEO4J_server_memory_heap_max__size"], sizes["NEO4J_server_memory_pagecache_size"]
    assert heap + pages < int(service["mem_limit"].rstrip("gb"))
    assert service["healthcheck"]["test"][0] == "CMD"
