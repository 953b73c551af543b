"""What a server is told when it starts, and what it refuses to start with."""

from __future__ import annotations

import ipaddress
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracestore.errors import BadInputError

SHORTEST_TOKEN: Final = 16
EXPORT_PREFIX: Final = "/api/export"
"""Addresses with places, a time and a size of their own."""
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Settings of one server. Bounds hold for every request: seconds, rows, bytes of a body and of an answer, requests at work and waiting.

    Exports have bounds of their own: seconds, traces, bytes, and how many may be at work.
    """

    store: str
    host: str = "127.0.0.1"
    port: int = 8321
    token: str | None = None
    allow_cypher: bool = False
    timeout_s: float = 30.0
    max_rows: int = 10_000
    max_body_bytes: int = 256 * 1024
    concurrency: int = 8
    max_waiting: int = 200
    max_answer_bytes: int = 64 * 1024**2
    archive: str | None = None
    export_timeout_s: float = 600.0
    max_export_traces: int = 10_000
    max_export_bytes: int = 10 * 1024**3
    exports: int = 2

    def __post_init__(self) -> None:
        """Refuse what would be open to others. Raises BadInputError."""
        if not is_loopback(self.host) and self.token is None:
            raise BadInputError(f"{self.host} can be reached from other machines: name a file that holds a token with --token-file")

    @property
    def allowed_hosts(self) -> tuple[str, ...] | None:
        """Names by which a request may address the server; None: any.

        On loopback without a token a web page elsewhere could have its own name point here: only names of this machine are answered.
        """
        return LOOPBACK_NAMES if self.token is None else None


def is_loopback(host: str) -> bool:
    """Does this address reach this machine alone?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """Read a bearer token from a file of one line. Raises BadInputError when it is short, or when others may read the file."""
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"the token file {path} cannot be read; check the path and its permissions") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadInputError(f"the token file {path} can be read by others; run: chmod 600 {path}")
    token = text.strip()
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise BadInputError(f"the token file {path} must hold one line of {SHORTEST_TOKEN} or more ASCII characters without spaces")
    return token
