"""What a store's bookkeeping knows of one trace id, on every engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

Status = Literal["READY", "EVICTED"]


@dataclass(frozen=True, slots=True)
class Record:
    """One trace id: its number (0 when evicted before it was ever loaded), READY or EVICTED, rows by table."""

    trace_id: str
    trace_no: int
    status: Status
    row_counts: Mapping[str, int]

    @classmethod
    def of(cls, row: Sequence[Any]) -> Self:
        """Read a row of trace_id, trace_no, status and row_counts (JSON)."""
        return cls(row[0], int(row[1]), row[2], json.loads(row[3]))

    @property
    def row_counts_text(self) -> str:
        """The counts as they are stored, JSON."""
        return json.dumps(dict(self.row_counts), sort_keys=True)
