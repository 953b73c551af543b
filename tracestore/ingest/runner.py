"""Run items through the extractor into an archive.

1. Read an entry. A line that is no item goes to the error file; the rest goes on.
2. Plan it: its trace id is known before the model runs.
3. A trace that the archive holds, has forgotten or got earlier in this run is not computed again; the line is added to it as an Item,
   unless it is there already.
4. Else compute it and hand it to the archive's writer. What fails for this item alone goes to the error file.
5. Whenever the writer has closed packages, tell the caller: from then on they survive anything.

Leaving the loop in any way, Ctrl-C included, closes the open package. A process that is killed loses the open package only, and the next
run over the same items makes exactly what is missing.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracestore import schema
from tracestore.archive import Archive, ArchiveWriter, Package, redact, redacted_item_id, redacted_trace_id
from tracestore.errors import BadInputError, ConservationError, ResourceError
from tracestore.ingest.summary import ErrorFile, TraceSummary
from tracestore.model import Item, Trace, TraceOptions

if TYPE_CHECKING:
    from tracestore.extract.items import ItemFailure
    from tracestore.extract.loading import LoadedModel
    from tracestore.extract.plan import PlannedTrace

Progress = Callable[[int], None]
"""Called with the number of items that were just dealt with."""

_ITEM_FAILURES: Final = (BadInputError, ConservationError, ResourceError)
"""What may be wrong with one item and right with the next."""


def trace_to_archive(
    items: Iterable[Item | ItemFailure],
    loaded: LoadedModel,
    archive: Archive,
    options: TraceOptions | None = None,
    *,
    progress: Progress | None = None,
    errors_path: Path | None = None,
    strict: bool = False,
    text_key: bytes | None = None,
    max_traces: int | None = None,
    on_packages: Callable[[Sequence[Package]], None] | None = None,
) -> TraceSummary:
    """Trace what the archive does not hold yet; give counts.

    Items that fail are written to `errors_path` (by default a file of this run in the archive's folder) and do not stop the others; with
    `strict` the first one raises. With `text_key` neither text nor token ids are kept, only hashes under that key. `max_traces` closes
    packages earlier than the archive would; `on_packages` hears of closed packages.
    Raises ResourceError and ArchiveError when the archive cannot be written.
    """
    start = time.monotonic()
    errors = ErrorFile(errors_path) if errors_path is not None else ErrorFile.beside(archive.path)
    writer = archive.writer() if max_traces is None else archive.writer(max_traces=max_traces)
    run = _Run(loaded, archive, options or TraceOptions(), writer, errors, strict=strict, text_key=text_key)
    told = 0
    with errors:
        with writer:
            for entry in items:
                writer.close_if_full()  # the wait for this entry may have been long, and its work may be
                run.handle(entry)
                if progress is not None:
                    progress(1)
                if on_packages is not None and len(writer.packages) > told:
                    on_packages(writer.packages[told:])
                    told = len(writer.packages)
        if on_packages is not None and len(writer.packages) > told:
            on_packages(writer.packages[told:])
    return run.summary(time.monotonic() - start)


class _Run:
    """State of one run: what is known, and the counts."""

    def __init__(
        self,
        loaded: LoadedModel,
        archive: Archive,
        options: TraceOptions,
        writer: ArchiveWriter,
        errors: ErrorFile,
        *,
        strict: bool,
        text_key: bytes | None,
    ) -> None:
        self._loaded, self._archive, self._options = loaded, archive, options
        self._writer, self._errors, self._strict, self._key = writer, errors, strict, text_key
        self._run_id = uuid.uuid4().hex
        self._forgotten = archive.forgotten()
        self._known = self._forgotten.union(archive.trace_ids())
        self._answers: dict[str, str | None] = {}  # what was said in the traces of this run, and in known ones that were looked at
        self._here: dict[str, str] = {}  # traces of this run -> item that they were computed for
        self._item_keys: set[tuple[str, str]] | None = None  # read from the archive when first needed
        self._asked: dict[str, None] = {}
        self._counts: Counter[str] = Counter()
        self._worst: float | None = None

    def handle(self, entry: Item | ItemFailure) -> None:
        """Deal with one entry of the input."""
        self._counts["items"] += 1
        if not isinstance(entry, Item):
            self._fail(entry.line, entry.item_id, "ItemError", entry.reason)
            return
        try:
            write = self._prepare(entry)
        except _ITEM_FAILURES as error:
            if self._strict:
                raise
            line = entry.line if entry.line is not None else self._counts["items"]
            self._fail(line, entry.id, type(error).__name__, str(error))
        else:
            write()  # outside the block above: a full disk is no fault of this item

    def summary(self, seconds: float) -> TraceSummary:
        """Give the counts."""
        names = ("items", "traced", "known", "joined", "failed", "outputs", "edges")
        counts = {name: self._counts[name] for name in names}
        return TraceSummary(
            **counts, worst_closure=self._worst, seconds=seconds, trace_ids=tuple(self._asked), errors_path=self._errors.path
        )

    def _prepare(self, item: Item) -> Callable[[], None]:
        """Do everything that may fail for this item alone; give what is left to do, which is to write."""
        from tracestore.extract.plan import plan_trace

        planned = plan_trace(self._loaded, item, self._options)
        trace_id = planned.trace_id if self._key is None else redacted_trace_id(planned.trace_id, self._key)
        item_id = planned.item_id if self._key is None else redacted_item_id(planned.item_id, self._key)
        if trace_id not in self._here and trace_id not in self._known:
            return self._compute(planned, trace_id, item_id)
        if self._has(trace_id, item_id):
            return lambda: self._note(trace_id, "known")
        return self._join(planned, trace_id, item_id)

    def _compute(self, planned: PlannedTrace, trace_id: str, item_id: str) -> Callable[[], None]:
        from tracestore.extract.trace import run_trace

        computed = run_trace(self._loaded, planned, run_id=self._run_id)
        trace = computed if self._key is None else redact(computed, self._key)

        def write() -> None:
            self._writer.add(trace)
            self._here[trace_id] = item_id
            self._answers[trace_id] = answer_of(computed)
            self._note(trace_id, "traced")
            self._counts["outputs"] += trace.table("Output").num_rows
            self._counts["edges"] += sum(table.num_rows for name, table in trace.tables.items() if name in schema.EDGE_TABLES)
            self._worst = max(trace.closure, self._worst or 0.0)

        return write

    def _has(self, trace_id: str, item_id: str) -> bool:
        """Tell whether a trace has an input line already, or must not get one."""
        if trace_id in self._forgotten or self._here.get(trace_id) == item_id:
            return True
        if self._item_keys is None:
            self._item_keys = set(self._archive.item_keys())
        return (trace_id, item_id) in self._item_keys

    def _join(self, planned: PlannedTrace, trace_id: str, item_id: str) -> Callable[[], None]:
        """Add an input line to a trace that is there."""
        from tracestore.extract.targets import answer_correct
        from tracestore.extract.text_tables import item_row

        if trace_id not in self._answers:
            self._answers[trace_id] = answer_of(self._archive.read_trace(trace_id)) if planned.item.expected else None
        answer = self._answers[trace_id]
        row = item_row(planned.item, item_id, None if answer is None else answer_correct(answer, planned.item.expected))
        del row["local"]

        def write() -> None:
            self._writer.add_items(trace_id, [row if self._key is None else row | {"expected": None, "rationale": None}])
            assert self._item_keys is not None
            self._item_keys.add((trace_id, item_id))
            self._note(trace_id, "joined")

        return write

    def _note(self, trace_id: str, what: str) -> None:
        self._counts[what] += 1
        self._asked[trace_id] = None

    def _fail(self, line: int, item_id: str | None, kind: str, reason: str) -> None:
        self._errors.write(line=line, item_id=item_id, kind=kind, reason=reason)
        self._counts["failed"] += 1


def answer_of(trace: Trace) -> str | None:
    """Give what was said after the prompt (generated or given), else the model's own last prediction; None without text."""
    header = trace.header
    if header["text"] is None:
        return None
    said = [t for t in trace.table("Token").to_pylist() if t["origin"] != "prompt" and t["char_to"] > t["char_from"]]
    if said:
        text: str = header["text"][min(t["char_from"] for t in said) :]
        return text
    last = [o for o in trace.table("Output").to_pylist() if o["pos"] == header["n_tokens"] - 1 and o["vocab_rank"] == 1]
    return str(last[0]["text"]) if last else None
