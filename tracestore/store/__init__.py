"""Graph stores: `open_engine(url)` gives the engine that the URL names.

An engine is added in one place, the registry below: URL scheme -> function that opens it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from tracestore.errors import StoreError
from tracestore.store.base import Store

__all__ = ["open_engine", "rebuild_engine"]

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_SERVER_SCHEMES: Final = ("neo4j", "neo4j+s", "neo4j+ssc", "bolt", "bolt+s", "bolt+ssc")


class _Open(Protocol):
    def __call__(self, url: str, *, read_only: bool, create: bool) -> Store: ...


@dataclass(frozen=True, slots=True)
class Engine:
    """How an engine is opened, and how a fresh store is built that takes the place of an old one in one step."""

    open: _Open
    rebuild: Callable[[str], AbstractContextManager[Store]]


def _ladybug() -> Engine:
    from tracestore.store.ladybug.rebuild import rebuild_ladybug
    from tracestore.store.ladybug.store import open_ladybug

    return Engine(open_ladybug, rebuild_ladybug)


def _neo4j() -> Engine:
    from tracestore.store.neo4j.store import open_neo4j, rebuild_neo4j

    return Engine(open_neo4j, rebuild_neo4j)


_ENGINES: Final[dict[str, Callable[[], Engine]]] = {"ladybug": _ladybug, **dict.fromkeys(_SERVER_SCHEMES, _neo4j)}


def _engine(url: str) -> Engine:
    match = _SCHEME.match(url)
    scheme = match.group(1).lower() if match else "ladybug"
    if scheme in _ENGINES:
        return _ENGINES[scheme]()
    known = ", ".join(f"{name}://" for name in _ENGINES)
    raise StoreError(f"no engine for {scheme}: give the path of a file, or a URL that begins with {known}")


def open_engine(url: str, *, read_only: bool = False, create: bool = True) -> Store:
    """Open the store at a path or URL.

    `create` makes a store where there is none (never with `read_only`). Raises StoreError and its kinds: StoreLockedError when another
    process writes to it, StoreVersionError when another version wrote it, StoreUnavailableError when it cannot be reached now.
    """
    return _engine(url).open(url, read_only=read_only, create=create)


def rebuild_engine(url: str) -> AbstractContextManager[Store]:
    """Give a fresh store to fill; when the block ends without an error it takes the place of the one at `url`, at once and whole."""
    return _engine(url).rebuild(url)
