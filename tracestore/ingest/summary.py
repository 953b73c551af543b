"""What a run of the extractor did, and the file that holds what failed."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Self

from tracestore.errors import BadInputError, PartialSuccessError

_PRIVATE: Final = 0o600


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """Counts of one run.

    `items` lines read; `traced` computed now; `known` computed before (the archive holds or forgot them); `joined` items that were added to
    a trace another line had asked for; `failed` lines written to `errors_path`; `trace_ids` of everything asked for, in order, once each.
    """

    items: int
    traced: int
    known: int
    joined: int
    failed: int
    outputs: int
    edges: int
    worst_closure: float | None
    seconds: float
    trace_ids: tuple[str, ...]
    errors_path: Path | None = None

    def raise_for_failures(self) -> None:
        """Raise PartialSuccessError when some items failed, BadInputError when all did."""
        if not self.failed:
            return
        where = f": the reasons are in {self.errors_path}"
        if self.failed == self.items:
            raise BadInputError(f"none of the {self.items:,} items could be traced{where}")
        raise PartialSuccessError(f"{self.failed:,} of {self.items:,} items failed, everything else is done{where}")


class ErrorFile:
    """A JSONL file of failed items, made when the first one fails: line, id, kind and reason; never any text of the item."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    @classmethod
    def beside(cls, archive: Path) -> Self:
        """Name a file for this run in the archive's folder."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        return cls(archive / "errors" / f"{stamp}-{os.getpid()}.jsonl")

    @property
    def path(self) -> Path | None:
        """Where the file is; None as long as nothing failed."""
        return self._path if self._file is not None else None

    def write(self, *, line: int, item_id: str | None, kind: str, reason: str) -> None:
        """Add one failed item and have it on disk."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.fdopen(os.open(self._path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, _PRIVATE), "w", encoding="utf-8")
        record = {"line": line, "item_id": item_id, "kind": kind, "reason": reason}
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            self._file.close()
