"""Take traces out of a store and keep them out: by id, or by what a retention rule says.

A trace leaves in two steps: it becomes invisible and is recorded as EVICTED (one small transaction for a group of traces), then its rows
are deleted. A killed command leaves recorded traces whose rows the next opening for writing deletes, and the rest as it was: the same
command again goes on. The archive is not touched.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tracestore.errors import BadInputError
from tracestore.store.base import Limits, Store

GROUP: Final = 100
"""Traces that become invisible in one transaction."""

_EVERYTHING: Final = Limits(timeout_s=600.0, max_rows=None)
_DURATION: Final = re.compile(r"(\d+)\s*([smhdw])")
_MILLISECONDS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


@dataclass(frozen=True, slots=True)
class Rule:
    """What goes: traces that meet *all* that is given.

    `tags`: every Item that asked for the trace has one of these; a trace that somebody else asked for too stays. `older_than_ms`: traced
    longer ago than this. `keep_last`: not among the newest so many of those that the tags choose.
    """

    keep_last: int | None = None
    older_than_ms: int | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trace in the store, as far as rules look at it. `created_at`: milliseconds since 1970-01-01 UTC."""

    trace_id: str
    created_at: int
    n_tokens: int


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What a rule takes, oldest first; how many stay; how many of these only because another Item asked for them too."""

    goes: tuple[Candidate, ...]
    stays: int
    shared: int


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What was deleted, how long it took, and the bytes of the store before and after (0: the engine does not tell)."""

    deleted: int
    seconds: float
    bytes_before: int
    bytes_after: int


def parse_duration(text: str) -> int:
    """Read `90s`, `15m`, `12h`, `30d` or `2w` as milliseconds. Raises BadInputError."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise BadInputError("a duration is a number and a unit: 90s, 15m, 12h, 30d or 2w")
    return int(match[1]) * _MILLISECONDS[match[2]]


def plan_prune(store: Store, rule: Rule, *, now_ms: int | None = None) -> PrunePlan:
    """Say what a rule would take; nothing is changed. Raises BadInputError for a rule that says nothing."""
    if rule.keep_last is None and rule.older_than_ms is None and not rule.tags:
        raise BadInputError("a retention rule needs keep-last, older-than or tag")
    now = round(time.time() * 1000) if now_ms is None else now_ms
    query = "MATCH (t:Trace) WHERE t.ready_id IS NOT NULL RETURN t.trace_id AS id, t.created_at AS created, t.n_tokens AS tokens"
    rows = store.run(query, {}, _EVERYTHING).table.to_pylist()
    found = sorted((Candidate(row["id"], row["created"], row["tokens"]) for row in rows), key=lambda one: (one.created_at, one.trace_id))
    chosen, shared = _tagged(store, rule.tags) if rule.tags else (None, frozenset())
    goes = [one for one in found if chosen is None or one.trace_id in chosen]
    if rule.keep_last is not None:
        goes = goes[: max(0, len(goes) - rule.keep_last)]
    if rule.older_than_ms is not None:
        goes = [one for one in goes if one.created_at < now - rule.older_than_ms]
    return PrunePlan(tuple(goes), len(found) - len(goes), len(shared))


def _tagged(store: Store, tags: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Give the traces whose Items all have one of the tags, and those of which only some have."""
    query = "MATCH (i:Item)-[:OF]->(t:Trace) WHERE t.ready_id IS NOT NULL RETURN t.trace_id AS id, i.tags AS tags"
    wanted = frozenset(tags)
    some: set[str] = set()
    others: set[str] = set()
    for row in store.run(query, {}, _EVERYTHING).table.to_pylist():
        (some if wanted & set(row["tags"] or ()) else others).add(row["id"])
    return frozenset(some - others), frozenset(some & others)


def delete_traces(store: Store, trace_ids: Sequence[str], *, progress: Callable[[int], None] | None = None) -> RetentionReport:
    """Delete traces in groups; `progress` is told how many ids were just dealt with. Ids that are not there are recorded all the same."""
    started = time.perf_counter()
    before = store.status().bytes
    wanted = list(dict.fromkeys(trace_ids))
    deleted = 0
    for first in range(0, len(wanted), GROUP):
        group = wanted[first : first + GROUP]
        deleted += store.evict(group)
        if progress is not None:
            progress(len(group))
    return RetentionReport(deleted, time.perf_counter() - started, before, store.status().bytes)
