"""What every engine of the graph store offers. Engines say what they can do in `Capabilities`; nobody asks for their name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

if TYPE_CHECKING:
    import pyarrow as pa

LoadLevel = Literal["summary", "mechanism"]


@dataclass(frozen=True, slots=True)
class BundleSize:
    """How much one `load` should bring: nodes and relationships at which a bundle of `min_traces` or more is closed, the same for one of
    fewer traces, and traces at most. One trace is never divided.
    """

    rows: int
    min_traces: int
    max_rows: int
    max_traces: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do. `dialect` names its folder of query overrides under `cypher/`.

    `skips_past_the_end`: ORDER BY, SKIP and LIMIT together may leave out more rows than there are.
    `bundle` is the size of load that suits it (None: the planner's own); `read_ahead` says how many bundles may be read and wait while
    one is being loaded.
    """

    dialect: str
    secondary_indexes: bool
    parallel_loaders: bool
    skips_past_the_end: bool = True
    bundle: BundleSize | None = None
    read_ahead: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one query: seconds and rows (None: as many as there are).

    `keep_plan`: a small question that will be asked again with other values; an engine may keep its plan, and the memory that takes.
    """

    timeout_s: float = 30.0
    max_rows: int | None = 10_000
    keep_plan: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """Rows of a query, and whether the row limit cut them off."""

    table: pa.Table
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class TraceBundle:
    """Tables to load: `schema.package_schema` for each, and the trace id of each ordinal in the `trace` column."""

    trace_ids: tuple[str, ...]
    tables: Mapping[str, pa.Table]


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What one `load` did. `edges` counts those of the schema, OF included; `skipped` were READY or EVICTED already.

    `busy` are in the hands of another loader that is alive (engines with parallel loaders): ask again when the rest is done.
    """

    loaded: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    nodes: int = 0
    edges: int = 0
    seconds: float = 0.0
    busy: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """Counts by label, relationship type and trace status, and where the store stands."""

    url: str
    engine: str
    engine_version: str
    schema_version: int
    nodes: Mapping[str, int]
    edges: Mapping[str, int]
    traces: Mapping[str, int]  # READY, LOADING, RETIRED, EVICTED -> count
    bytes: int


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Findings of a store check: each a sentence; none means sound. `checked` counts what was looked at, by name of the check."""

    problems: tuple[str, ...] = ()
    checked: Mapping[str, int] = field(default_factory=dict)


Progress = Callable[[int], None]
"""Called with the number of edges that were just stored."""


class Store(Protocol):
    """A graph store, open. Usable as a context manager; queries see READY traces only."""

    @property
    def url(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    @property
    def applied(self) -> Sequence[str]:
        """Names of the migrations that opening applied."""
        ...

    def migrate(self) -> Sequence[str]:
        """Apply what is still missing of the migrations; give their names."""
        ...

    def load(
        self,
        bundle: TraceBundle,
        *,
        level: LoadLevel = "summary",
        replace: bool = False,
        progress: Progress | None = None,
        writers: int | None = None,
    ) -> LoadReport:
        """Load whole traces; all become visible or none does. READY and EVICTED ones are skipped unless `replace`.

        `writers` work side by side on disjoint traces, where the engine has parallel loaders; elsewhere there is one.
        """
        ...

    def attach(self, bundle: TraceBundle, output_id: str) -> LoadReport:
        """Add the mechanism level of one Output whose trace is READY; `bundle` holds that trace."""
        ...

    def annotate(self, bundle: TraceBundle) -> LoadReport:
        """Add append-only rows (Item nodes of further input lines, knockouts) to READY traces; those already there are skipped."""
        ...

    def run(self, cypher: str, params: Mapping[str, Any], limits: Limits) -> Result:
        """Run one read-only statement. The statement itself must select READY traces."""
        ...

    def read_output(self, output_id: str) -> Mapping[str, pa.Table]:
        """Read back everything stored of one Output: tables by name, `schema.arrow_schema` each, local numbers."""
        ...

    def ready(self) -> frozenset[str]:
        """Trace ids that are complete and visible."""
        ...

    def evicted(self) -> frozenset[str]:
        """Trace ids that were deleted on purpose: a load skips them."""
        ...

    def evict(self, trace_ids: Sequence[str]) -> int:
        """Delete traces and record EVICTED, so that the next load does not bring them back."""
        ...

    def status(self) -> StoreStatus: ...

    def check(self) -> CheckReport: ...
