"""One database of a server: transactions that are repeated while that can help, and rows of a read.

What is repeated must be safe to repeat: a commit whose answer was lost may have happened. Every work function therefore recognises its
own traces (a batch marker, a lease, a record) before it writes again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tracestore.errors import StoreUnavailableError
from tracestore.store.neo4j.connection import is_memory_error, load_driver, translate, translated

if TYPE_CHECKING:
    import neo4j

T = TypeVar("T")
Work = Callable[["neo4j.Transaction"], T]

PATIENCE_S: Final = 180.0
"""How long a transaction is tried again: a killed server recovers in about 20 s, a cut line may last longer."""

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0

_log = logging.getLogger(__name__)


class Database:
    """A driver bound to one database, always by name."""

    def __init__(self, driver: neo4j.Driver, name: str, *, patience_s: float = PATIENCE_S) -> None:
        self.driver = driver
        self.name = name
        self._patience_s = patience_s

    def close(self) -> None:
        """Close every connection."""
        self.driver.close()

    def rows(self, cypher: str, params: Mapping[str, Any] | None = None, subject: str = "a look at the store") -> list[list[Any]]:
        """Run one reading statement; give its rows."""

        def read(transaction: neo4j.Transaction) -> list[list[Any]]:
            return rows(transaction, cypher, params)

        return self._transaction(read, subject, "READ")

    def write(self, work: Work[T], subject: str, *, patience_s: float | None = None) -> T:
        """Run `work` in a transaction of its own; repeat it after errors that pass, for `patience_s` (None: as long as usual).

        Raises ResourceError when the server lacks memory for it (not repeated: send less), StoreUnavailableError when patience ends.
        """
        return self._transaction(work, subject, "WRITE", patience_s)

    def once(self, cypher: str, params: Mapping[str, Any]) -> list[list[Any]] | None:
        """Run one writing statement as a transaction of its own, a single way to the server and back; give its rows.

        None when it failed, or its answer was lost: it may have happened. Whoever calls this finds out with `write`.
        """
        exceptions = load_driver().exceptions
        try:
            with self.driver.session(database=self.name, default_access_mode="WRITE") as session:
                return [list(record.values()) for record in session.run(cypher, dict(params))]
        except (exceptions.Neo4jError, exceptions.DriverError) as error:
            _log.info("one statement failed: %s", getattr(error, "code", None) or type(error).__name__)
            return None

    def schema(self, statement: str) -> None:
        """Run one change of the schema in a transaction of its own."""
        with translated("a schema change"), self.driver.session(database=self.name) as session:
            session.run(statement).consume()

    def _transaction(self, work: Work[T], subject: str, mode: str, patience_s: float | None = None) -> T:
        exceptions = load_driver().exceptions
        patience_s = self._patience_s if patience_s is None else min(patience_s, self._patience_s)
        deadline = time.monotonic() + patience_s
        pause = _FIRST_PAUSE_S
        while True:
            try:
                with self.driver.session(database=self.name, default_access_mode=mode) as session:
                    with session.begin_transaction() as transaction:
                        done = work(transaction)
                        transaction.commit()
                    return done
            except exceptions.Neo4jError as error:
                if is_memory_error(error) or not error.is_retryable() or time.monotonic() > deadline:
                    raise translate(error, subject) from error
                _log.info("repeating %s after %s", subject, error.code)
            except (exceptions.ServiceUnavailable, exceptions.SessionExpired, exceptions.TransactionError) as error:
                if time.monotonic() > deadline:
                    raise StoreUnavailableError(
                        f"Neo4j could not be reached for {subject} during {patience_s:.0f} s; run the command again when it is back"
                    ) from error
                _log.info("repeating %s after %s", subject, type(error).__name__)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def rows(transaction: neo4j.Transaction, cypher: str, params: Mapping[str, Any] | None = None) -> list[list[Any]]:
    """Run one statement inside a transaction; give its rows."""
    return [list(record.values()) for record in transaction.run(cypher, dict(params or {}))]
