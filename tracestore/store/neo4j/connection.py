"""From a URL and the environment to a driver: which addresses are taken, with which credentials, which servers, and what their errors mean.

Credentials come from NEO4J_USERNAME, NEO4J_PASSWORD or NEO4J_PASSWORD_FILE, and NEO4J_DATABASE only: command lines are public.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tracestore.errors import BadInputError, ResourceError, StoreError, StoreUnavailableError, StoreVersionError, TracestoreError

if TYPE_CHECKING:
    import neo4j

SCHEMES: Final = ("neo4j", "neo4j+s", "neo4j+ssc", "bolt", "bolt+s", "bolt+ssc")
ALLOW_PLAIN: Final = "TRACESTORE_ALLOW_PLAIN"
_VERSION: Final = re.compile(r"^(\d+)\.(\d+)")
_NEWEST_CALENDAR_YEAR: Final = 2026


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are to the server, and which of its databases we mean."""

    username: str
    password: str
    database: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, database={self.database!r})"


def read_credentials(environment: Mapping[str, str] | None = None) -> Credentials:
    """Read the credentials. Raises StoreError when there is no password or its file cannot be read."""
    values = os.environ if environment is None else environment
    password = values.get("NEO4J_PASSWORD")
    if password is None and (path := values.get("NEO4J_PASSWORD_FILE")):
        try:
            password = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise StoreError(f"the password file {path} (NEO4J_PASSWORD_FILE) cannot be read: {error.strerror}") from None
    if not password:
        raise StoreError("no password for Neo4j: set NEO4J_PASSWORD_FILE (a file) or NEO4J_PASSWORD in the environment")
    return Credentials(values.get("NEO4J_USERNAME") or "neo4j", password, values.get("NEO4J_DATABASE") or "neo4j")


def is_loopback(host: str) -> bool:
    """Does this name mean this machine, without asking anybody?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_url(url: str, *, allow_plain: bool | None = None) -> str:
    """Give the URL when it may be used.

    `allow_plain` None asks the environment (TRACESTORE_ALLOW_PLAIN=1). Raises BadInputError: not a Neo4j URL, credentials in it, or an
    unencrypted one that leaves this machine.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise BadInputError("this is not a URL: give one such as neo4j+s://host:7687") from None
    if parts.scheme not in SCHEMES or not host:
        raise BadInputError("this is not the URL of a Neo4j server: give one such as neo4j+s://host:7687")
    if parts.username is not None or parts.password is not None:
        raise BadInputError("credentials do not belong in a URL: set NEO4J_USERNAME and NEO4J_PASSWORD_FILE in the environment")
    if parts.query or parts.fragment or parts.path not in ("", "/"):
        raise BadInputError(f"{parts.scheme}://{host} takes no path and no parameters: the database is named by NEO4J_DATABASE")
    plain = "+" not in parts.scheme
    permitted = os.environ.get(ALLOW_PLAIN) == "1" if allow_plain is None else allow_plain
    if plain and not permitted and not is_loopback(host):
        raise BadInputError(
            f"{parts.scheme}://{host} would send password and prompts unencrypted over the network: "
            f"use {parts.scheme}+s://, or set {ALLOW_PLAIN}=1 where the network itself is private"
        )
    return url.rstrip("/")


def load_driver() -> Any:
    """Import the driver. Raises StoreError saying what to install."""
    try:
        import neo4j
    except ImportError:
        raise StoreError("the Neo4j driver is not installed: pip install 'tracestore[neo4j]'") from None
    return neo4j


def make_driver(url: str, credentials: Credentials, *, connections: int = 16) -> neo4j.Driver:
    """Make a driver; nothing is sent yet."""
    library = load_driver()
    driver: neo4j.Driver = library.GraphDatabase.driver(
        url,
        auth=(credentials.username, credentials.password),
        connection_timeout=10.0,
        connection_acquisition_timeout=30.0,
        max_transaction_retry_time=0.0,  # our own loop retries: it knows the batch markers
        max_connection_pool_size=connections,
        user_agent="tracestore",
        notifications_min_severity="OFF",
    )
    return driver


def answers(url: str, username: str, password: str) -> bool:
    """Tell whether a server answers there and its database is up. Raises StoreError when it refuses the password."""
    library = load_driver()
    with make_driver(url, Credentials(username, password, "neo4j")) as driver:
        try:
            driver.execute_query("RETURN 1", database_="neo4j")
        except library.exceptions.AuthError as error:
            raise StoreError("the local server refuses the password in its password file; remove its home folder to begin anew") from error
        except (library.exceptions.DriverError, library.exceptions.Neo4jError):
            return False
    return True


def server_version(driver: neo4j.Driver, database: str) -> str:
    """Read the server's version. Raises StoreVersionError for one that is not supported (5.26 up to 2026.x)."""
    with translated("the server's version"):
        records = driver.execute_query(
            "CALL dbms.components() YIELD name, versions RETURN name, versions[0] AS version", database_=database, routing_="r"
        ).records
    kernel = [str(record["version"]) for record in records if record["name"] == "Neo4j Kernel"]
    if not kernel:
        raise StoreVersionError("this server speaks Bolt but is not Neo4j; Neo4j 5.26 or newer is needed")
    check_version(kernel[0])
    return kernel[0]


def check_version(version: str) -> None:
    """Accept 5.26 and later 5.x, and the calendar versions 2025.x and 2026.x. Raises StoreVersionError for any other."""
    match = _VERSION.match(version)
    major, minor = (int(match[1]), int(match[2])) if match else (0, 0)
    if (major == 5 and minor >= 26) or 2025 <= major <= _NEWEST_CALENDAR_YEAR:
        return
    raise StoreVersionError(f"Neo4j {version} is not supported: tracestore was tested with 5.26 and 2026.x; install one of these")


@contextmanager
def translated(subject: str) -> Iterator[None]:
    """Turn the driver's errors into ours; `subject` says what was being done. Messages never hold statements or parameters."""
    library = load_driver()
    try:
        yield
    except TracestoreError:
        raise
    except library.exceptions.Neo4jError as error:
        raise translate(error, subject) from error
    except library.exceptions.DriverError as error:
        raise StoreUnavailableError(
            f"Neo4j cannot be reached for {subject} ({_reason(error)}); is it running, and is the URL right?"
        ) from error


def _reason(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def translate(error: neo4j.exceptions.Neo4jError, subject: str) -> TracestoreError:
    """Turn a server's error into ours by its code."""
    code = error.code or ""
    if code.startswith("Neo.ClientError.Security.AuthenticationRateLimit"):
        return StoreError("Neo4j refuses to answer after too many wrong passwords; wait a few seconds, then check NEO4J_PASSWORD")
    if code.startswith("Neo.ClientError.Security"):
        return StoreError(f"Neo4j refused the credentials for {subject}; check NEO4J_USERNAME and NEO4J_PASSWORD or NEO4J_PASSWORD_FILE")
    if code == "Neo.ClientError.Database.DatabaseNotFound":
        return StoreError("the server has no database of the name in NEO4J_DATABASE; a community server has one, called neo4j")
    if is_memory_error(error):
        return ResourceError(f"Neo4j ran out of transaction memory for {subject}; raise dbms.memory.transaction.total.max or its heap")
    if error.is_retryable():
        return StoreUnavailableError(f"Neo4j could not do {subject} now ({code}); try again")
    if code.endswith("Schema.ConstraintCreationFailed"):
        return StoreError(f"Neo4j cannot do {subject}: nodes that are there break the constraint")
    if code.startswith("Neo.DatabaseError"):
        return StoreUnavailableError(
            f"Neo4j failed at {subject} ({code}); its log says why: often a full disk. Mend that, start the server again, "
            "and run the same command again: what is complete stays, nothing partial is visible"
        )
    return StoreError(f"Neo4j refused {subject} ({code})")


def is_memory_error(error: BaseException) -> bool:
    """Was it the memory of a transaction, or the pool of all of them? A smaller batch may pass."""
    code = str(getattr(error, "code", "") or "")
    return code.endswith(("MemoryPoolOutOfMemoryError", "TransactionOutOfMemoryError", "General.OutOfMemoryError"))
