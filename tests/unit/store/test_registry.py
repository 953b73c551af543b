"""URLs choose the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracestore.errors import StoreError, StoreUnavailableError
from tracestore.store import open_engine


def test_a_path_and_a_url_open_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "a graph.lbug"
    with open_engine(str(path)) as store:
        assert store.capabilities.dialect == "ladybug"
        assert store.url == str(path)
    with open_engine("ladybug://" + str(path).replace(" ", "%20"), read_only=True) as store:
        assert store.ready() == frozenset()
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".lbug"] == ["a graph.lbug"]


def test_an_unknown_scheme_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no engine for mysql"):
        open_engine("mysql://localhost/graph")


@pytest.mark.parametrize(
    ("url", "words"), [("ladybug://host/graph.lbug", "names a host"), ("ladybug:", "path is empty"), ("", "path is empty")]
)
def test_a_url_without_a_file_is_refused(url: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        open_engine(url)


@pytest.mark.parametrize("read_only", [True, False])
def test_nothing_is_made_unless_asked(tmp_path: Path, read_only: bool) -> None:
    with pytest.raises(StoreUnavailableError, match="there is no store"):
        open_engine(str(tmp_path / "graph.lbug"), read_only=read_only, create=read_only)
    assert list(tmp_path.iterdir()) == []
