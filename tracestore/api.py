"""The Python interface: load a model, trace, keep, load into a graph, ask.

Importing this needs neither torch, pyarrow nor an engine: each is imported by the function that uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final, Self

from tracestore.errors import BadInputError
from tracestore.model import DEFAULT_METHOD, Gauge, GenerationOptions, Item, Method, PruningOptions, StepRule, Targets, Trace, TraceOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from tracestore.archive import Archive
    from tracestore.evaluate.evaluation import Evaluation
    from tracestore.export import ExportReport
    from tracestore.extract.items import ItemFailure, ItemFormat
    from tracestore.extract.loading import Dtype, LoadedModel
    from tracestore.extract.validate import ValidationReport
    from tracestore.ingest import IngestSummary
    from tracestore.knockouts import Kind, KnockoutReport
    from tracestore.load import LoadPlan, LoadSummary, PrunePlan, RetentionReport
    from tracestore.store.base import CheckReport, LoadLevel, LoadReport, Progress, Result, Store, StoreStatus

DEMO_MODEL: Final = "demo"
"""The name under which `load_model` gives the small packaged model."""

_GENERATION: Final = GenerationOptions()
_PRUNING: Final = PruningOptions()


def load_model(model: str | Path, *, device: str = "cpu", dtype: Dtype = "float32") -> LoadedModel:
    """Load a causal language model from a folder or a hub id; `demo` is the packaged SmolLM2-135M.

    Raises BadInputError, UnsupportedModelError and ResourceError; whether its decomposition closes is checked on first use.
    """
    _need_extract()
    if model == DEMO_MODEL:
        from tracestore.ingest.demo import load_demo_model

        return load_demo_model(device=device, dtype=dtype)
    from tracestore.extract.loading import load_model as load

    return load(model, device=device, dtype=dtype)


def trace(
    model: LoadedModel,
    item: str | Item,
    *,
    targets: Targets | None = None,
    target_token: str | int | None = None,
    foil: str | int | None = None,
    gauge: Gauge | None = None,
    steps: StepRule | None = None,
    max_new_tokens: int = _GENERATION.max_new_tokens,
    temperature: float = _GENERATION.temperature,
    top_p: float = _GENERATION.top_p,
    seed: int = _GENERATION.seed,
    method: Method = DEFAULT_METHOD,
    keep: float = _PRUNING.keep,
    max_edges: int = _PRUNING.max_edges,
    compositions: int = _PRUNING.compositions,
    paths: int = _PRUNING.paths,
    sensitivity: bool = False,
) -> Trace:
    """Trace a prompt or an item in memory: which earlier tokens drove the predictions at `targets`.

    `targets`: `last` (the prediction after the final position), `generated`, `all`, positions, `span:KIND` (each span of a kind as one
    sum) or `span:KIND:each`; `foil`: a token, or `runner-up`; `steps`: cut the answer by `sentence` or `line`; `sensitivity`: estimate
    what removing each kept edge would take away. Raises ItemError, ModelOutputError, UnsupportedModelError, ResourceError.
    """
    from tracestore.extract.trace import trace as run

    generation = GenerationOptions(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    pruning = PruningOptions(keep=keep, max_edges=max_edges, compositions=compositions, paths=paths)
    return run(model, item, TraceOptions(targets, target_token, foil, gauge, method, generation, pruning, steps, sensitivity))


def validate(
    model: LoadedModel | str | Path, *, method: Method = DEFAULT_METHOD, device: str = "cpu", dtype: Dtype = "float32"
) -> ValidationReport:
    """Check the identities of a method on a model. Raises UnsupportedModelError with the reason when it is refused."""
    from tracestore.extract.validate import validate as run

    return run(load_model(model, device=device, dtype=dtype) if isinstance(model, str | Path) else model, method)


def verify(
    model: LoadedModel,
    archive: Archive,
    output_id: str,
    *,
    top: int = 10,
    kind: Kind = "column",
    random: int = 0,
    seed: int = 0,
    sources: Sequence[str] = (),
    again: bool = False,
) -> KnockoutReport:
    """Knock out the top sources of a stored prediction on the model and append the effects to the archive.

    `kind`: column (a token may not be read any more), edge, head, mean-embedding, motif, span or step; `random` further sources are drawn
    as controls; `sources` names some instead. What was measured before is not measured again unless `again`. `.table` has a row each:
    `effect` is `explained` without the source less `explained` with it, logits. Raises BadInputError, ModelOutputError.
    """
    from tracestore.knockouts import Choice
    from tracestore.knockouts import verify as run

    return run(model, archive, output_id, Choice(kind, top, random, seed, tuple(sources), again))


def evaluate(
    suites: Sequence[str] | None,
    output: str | Path,
    *,
    methods: Sequence[str] | None = None,
    model: str = DEMO_MODEL,
    load: Callable[[], LoadedModel] | None = None,
    split: str | None = "report",
    limit: int | None = None,
    jobs: int = 1,
    progress: Callable[[], None] | None = None,
) -> Evaluation:
    """Evaluate traces and baselines on suites into the folder `output`; a run that was stopped goes on there.

    `suites` None: all but those that train for minutes. `load` gives the language model where it is not to be loaded by name; with several
    `jobs` (processes, each with a model and one thread) it must be something that can be pickled. Raises BadInputError for unknown suites
    and methods, ResourceError when a process ends.
    """
    _need_extract()
    from tracestore.evaluate.evaluation import run
    from tracestore.evaluate.methods import find_methods
    from tracestore.evaluate.suites.registry import DEFAULT_SUITES, find_suite
    from tracestore.evaluate.workers import Workers

    chosen = [find_suite(name) for name in suites or DEFAULT_SUITES]
    found = find_methods(None if methods is None else list(methods))
    with Workers(load or partial(load_model, model), jobs) as workers:
        return run(chosen, found, Path(output), model=model, workers=workers, split=split, limit=limit, progress=progress)


def open_archive(path: str | Path, *, create: bool = False) -> Archive:
    """Open the archive in a folder; with `create` it is made. Raises BadInputError when there is none, ArchiveError when it is unusable."""
    from tracestore.archive import Archive

    if not create and not (Path(path).expanduser() / "packages").is_dir():
        raise BadInputError(f"there is no archive at {path}: check the path, or trace into it first")
    return Archive(path, create=create)


def read_items(
    source: str | Path | IO[bytes], *, format: ItemFormat | None = None, text_key: bytes | None = None
) -> Iterator[Item | ItemFailure]:
    """Read items from .jsonl, .txt, .parquet, `-` or a stream; what is no item comes as an ItemFailure with its line number."""
    _need_extract()
    from tracestore.extract.items import read_items as read

    return read(source, format=format, text_key=text_key)


def read_otel(path: str | Path) -> Iterator[Item | ItemFailure]:
    """Read the language model calls of a file of OpenTelemetry spans (OTLP JSON) as items; what cannot be replayed as failures."""
    _need_extract()
    from tracestore.extract.otel import read_otel as read

    return read(path)


def ingest_items(
    items: Iterable[Item | ItemFailure],
    model: LoadedModel,
    archive: Archive,
    store: GraphStore,
    options: TraceOptions | None = None,
    *,
    level: LoadLevel | None = None,
    expected_items: int | None = None,
    writers: int | None = None,
    progress: Progress | None = None,
    errors_path: Path | None = None,
    strict: bool = False,
    text_key: bytes | None = None,
) -> IngestSummary:
    """Trace into the archive and load into the store at the same time; see `tracestore.ingest.ingest_items`."""
    from tracestore.ingest import ingest_items as run

    return run(
        items,
        model,
        archive,
        store.engine,
        options,
        level=level,
        expected_items=expected_items,
        writers=writers,
        progress=progress,
        errors_path=errors_path,
        strict=strict,
        text_key=text_key,
    )


def open_store(url: str | Path, *, read_only: bool = False, create: bool | None = None) -> GraphStore:
    """Open the graph store at a path or URL; unless `read_only` it is made when there is none.

    Raises StoreError and its kinds: unavailable, locked by another process, or written by another version.
    """
    from tracestore.store import open_engine

    return GraphStore(open_engine(str(url), read_only=read_only, create=not read_only if create is None else create))


def rebuild_store(
    archive: Archive,
    url: str | Path,
    *,
    level: LoadLevel | None = None,
    progress: Progress | None = None,
    on_plan: Callable[[LoadPlan], None] | None = None,
    writers: int | None = None,
) -> LoadSummary:
    """Make the store anew from the archive; it takes the old one's place when it is complete. Deleted bytes are gone then."""
    from tracestore.load import rebuild_store as run

    return run(archive, str(url), level=level, progress=progress, on_plan=on_plan, writers=writers)


def export_archive(
    archive: Archive,
    format: str,
    target: str | Path,
    *,
    level: LoadLevel | None = None,
    since: datetime | None = None,
    progress: Progress | None = None,
    on_plan: Callable[[LoadPlan], None] | None = None,
) -> ExportReport:
    """Write what the archive holds into a new folder, in a format of `tracestore export`; whole or not at all.

    `since` leaves out packages that were closed before it, for increments (a time without a zone is local).
    Raises BadInputError when the format is unknown or the folder is there, ArchiveError, ResourceError.
    """
    from tracestore.export import ExportRequest
    from tracestore.export import export_archive as run

    after = None if since is None else int(since.timestamp() * 1000)
    return run(format, ExportRequest(archive, Path(target), level, after, progress, on_plan))


class GraphStore:
    """A graph store, open: load archives into it and ask it. A context manager."""

    def __init__(self, engine: Store) -> None:
        self.engine = engine

    def __repr__(self) -> str:
        return f"GraphStore({self.url!r})"

    @property
    def url(self) -> str:
        """Where it is."""
        return self.engine.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close it and give its lock back."""
        self.engine.close()

    # --- filling ------------------------------------------------------------------------------------------------------------------------

    def load(
        self,
        archive: Archive,
        *,
        level: LoadLevel | None = None,
        progress: Progress | None = None,
        on_plan: Callable[[LoadPlan], None] | None = None,
        writers: int | None = None,
    ) -> LoadSummary:
        """Load what the archive holds and the store does not; `level` None takes mechanism up to 1 000 outputs, else summary.

        `progress` is told the edges just stored, `on_plan` what will be done; `writers` work side by side on a server. Raises
        PartialSuccessError when a package is damaged.
        """
        from tracestore.load import load_archive

        return load_archive(archive, self.engine, level=level, progress=progress, on_plan=on_plan, writers=writers)

    def attach(self, archive: Archive, output_id: str) -> LoadReport:
        """Add the mechanism level of one output from the archive."""
        from tracestore.load import attach_output

        return attach_output(archive, self.engine, output_id)

    def delete(self, trace_ids: Sequence[str], *, progress: Progress | None = None) -> RetentionReport:
        """Delete traces; the next `load` does not bring them back. The report says how many were there."""
        from tracestore.load import delete_traces

        return delete_traces(self.engine, trace_ids, progress=progress)

    def plan_prune(self, *, keep_last: int | None = None, older_than_ms: int | None = None, tags: Sequence[str] = ()) -> PrunePlan:
        """Say which traces a retention rule takes: those that meet all that is given (see `tracestore.load.retention.Rule`)."""
        from tracestore.load import Rule, plan_prune

        return plan_prune(self.engine, Rule(keep_last, older_than_ms, tuple(tags)))

    def prune(self, plan: PrunePlan, *, progress: Progress | None = None) -> RetentionReport:
        """Delete what a plan takes; the next `load` does not bring it back."""
        return self.delete([one.trace_id for one in plan.goes], progress=progress)

    def migrate(self) -> Sequence[str]:
        """Apply the schema migrations that are missing; give their names and those that opening the store applied."""
        return [*self.engine.applied, *self.engine.migrate()]

    # --- asking -------------------------------------------------------------------------------------------------------------------------

    def query(self, name: str, /, **params: Any) -> pa.Table:
        """Run a named query of the catalogue: `store.query("drivers", output_id=..., k=8)`. Raises QueryError."""
        return self.run_named(name, params).table

    def cypher(self, statement: str, /, **params: Any) -> pa.Table:
        """Run one read-only Cypher statement, 10 000 rows at most. Raises QueryError when it would write."""
        return self.run_cypher(statement, params).table

    def run_named(self, name: str, params: Mapping[str, object], *, max_rows: int | None = None, timeout_s: float | None = None) -> Result:
        """Run a named query; the result says whether `max_rows` cut it off."""
        from tracestore.query.run import DEFAULT_TIMEOUT_S, run_named
        from tracestore.store.base import Limits

        if max_rows is None and timeout_s is None:
            return run_named(self.engine, name, params)
        seconds = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
        return run_named(self.engine, name, params, limits=Limits(timeout_s=seconds, max_rows=max_rows))

    def run_cypher(
        self, statement: str, params: Mapping[str, object], *, max_rows: int | None = None, timeout_s: float | None = None
    ) -> Result:
        """Run one read-only statement; the result says whether `max_rows` (default 10 000) cut it off."""
        from tracestore.query import run_cypher
        from tracestore.store.base import Limits

        bounds: dict[str, Any] = {name: value for name, value in (("max_rows", max_rows), ("timeout_s", timeout_s)) if value is not None}
        return run_cypher(self.engine, statement, params, limits=Limits(**bounds))

    def read_trace(self, output_id: str) -> Trace:
        """Read an output back as a trace that holds it alone. Raises BadInputError when no complete trace has it."""
        tables = self.engine.read_output(output_id)
        return Trace(tables["Trace"]["trace_id"][0].as_py(), dict(tables))

    def status(self) -> StoreStatus:
        """Count nodes by label, edges by type, traces by status."""
        return self.engine.status()

    def check(self) -> CheckReport:
        """Look for what must not be: broken identities, orphans, missing rows."""
        return self.engine.check()


def _need_extract() -> None:
    """Raise BadInputError with the command to run where torch is not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        raise BadInputError(f"tracing needs {' and '.join(missing)}: run `pip install 'tracestore[extract]'`")


__all__: Final = (
    "DEMO_MODEL",
    "GraphStore",
    "ingest_items",
    "load_model",
    "open_store",
    "read_items",
    "rebuild_store",
    "trace",
    "validate",
    "verify",
)
