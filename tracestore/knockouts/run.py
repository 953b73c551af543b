"""Verify explained predictions: choose sources, leave out what was measured before, measure, append.

1. Read the trace with everything that was appended to it; refuse a model that is not the one that was traced.
2. Choose the top sources of a kind and, as controls, random others of the same kind.
3. Measure those that the archive has no effect of (with `again`: all) beside the model as it is, which must say what was recorded.
4. Append the effects as a package of their own. The archive's writer closes one at least every minute, so a run that is killed goes on
   where it stopped, and nothing is measured twice.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tracestore.errors import BadInputError, PartialSuccessError
from tracestore.knockouts.effects import effect_tables, known_effects
from tracestore.knockouts.report import Knockout, KnockoutReport, OutputKnockouts
from tracestore.knockouts.sources import Candidates, Kind, Source
from tracestore.model import Output, Trace

if TYPE_CHECKING:
    from tracestore.archive import Archive, ArchiveWriter
    from tracestore.extract.knockouts.measure import KnockoutRunner
    from tracestore.extract.knockouts.removal import Target
    from tracestore.extract.loading import LoadedModel

Progress = Callable[[int], None]

REPLAY_TOLERANCE: Final = 1e-3
"""How far the model may be from what was recorded, relative to max(|explained|, std of the logits)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What to knock out: the `top` sources of a `kind` and `controls` random others drawn with `seed`, or those that `names` names.

    `again` measures what was measured before once more.
    """

    kind: Kind = "column"
    top: int = 10
    controls: int = 0
    seed: int = 0
    names: tuple[str, ...] = ()
    again: bool = False

    def check(self) -> None:
        """Raise BadInputError for numbers that mean nothing."""
        if self.top < 0 or self.controls < 0 or (self.top + self.controls == 0 and not self.names):
            raise BadInputError("nothing to knock out: ask for at least one source (top, random or by name)")


class PartialVerifyError(PartialSuccessError):
    """Some outputs could not be verified; `report` says which, and holds the others."""

    def __init__(self, message: str, report: KnockoutReport) -> None:
        super().__init__(message)
        self.report = report


def verify(
    loaded: LoadedModel, archive: Archive, output_id: str, choice: Choice | None = None, *, progress: Progress | None = None
) -> KnockoutReport:
    """Knock out sources of one stored prediction and append the effects to its archive; `progress` is told what was measured.

    Raises BadInputError (unknown output, another or a changed model, a source that cannot be removed, no text kept), ModelOutputError.
    """
    choice = choice or Choice()
    choice.check()
    trace = archive.read_trace(output_id.partition(":")[0])
    output = next((one for one in trace.outputs if one.output_id == output_id), None)
    if output is None:
        raise BadInputError(f"trace {trace.trace_id} has no output {output_id}: see `tracestore why --trace {trace.trace_id}`")
    with archive.writer() as writer:
        found = _verify_output(_Runner(loaded), trace, output, choice, writer, progress)
    return _report([found])


def verify_all(
    loaded: LoadedModel,
    archive: Archive,
    choice: Choice | None = None,
    *,
    output_ids: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> KnockoutReport:
    """Verify every prediction of the archive that this model made (or those named); `progress` is told of each output that is done.

    Raises PartialVerifyError when some failed; the others' effects are in the archive. Safe to repeat.
    """
    choice = choice or Choice()
    choice.check()
    runner, done, failures, skipped = _Runner(loaded), [], {}, 0
    with archive.writer() as writer:
        for trace, output in _outputs(archive, output_ids):
            header = trace.header
            if header["model_fingerprint"] != loaded.fingerprint and header["model_id"] != loaded.model_id:
                skipped += 1
            else:
                try:
                    done.append(_verify_output(runner, trace, output, choice, writer, None))
                except BadInputError as error:
                    failures[output.output_id] = str(error)
            if progress is not None:
                progress(1)
    report = _report(done, skipped, failures)
    if not done and skipped and not failures:
        raise BadInputError(f"none of the {skipped} outputs was made by {loaded.model_id}: name the model that was traced")
    if failures:
        first = next(iter(failures.values()))
        raise PartialVerifyError(f"{len(failures)} of {len(failures) + len(done)} outputs were not verified; the first: {first}", report)
    return report


def _outputs(archive: Archive, output_ids: Iterable[str] | None) -> Iterator[tuple[Trace, Output]]:
    if output_ids is None:
        for trace in archive.read_traces():
            yield from ((trace, output) for output in trace.outputs)
        return
    for output_id in output_ids:
        trace = archive.read_trace(output_id.partition(":")[0])
        yield from ((trace, output) for output in trace.outputs if output.output_id == output_id)


def _report(outputs: Sequence[OutputKnockouts], skipped: int = 0, failures: dict[str, str] | None = None) -> KnockoutReport:
    every = [knockout for output in outputs for knockout in output.knockouts]
    known = sum(knockout.known for knockout in every)
    return KnockoutReport(tuple(outputs), len(every) - known, known, skipped, failures or {})


class _Runner:
    """The model, prepared when it is first needed: what is known already costs no model run."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self._runner: KnockoutRunner | None = None

    def get(self) -> KnockoutRunner:
        if self._runner is None:
            from tracestore.extract.knockouts.measure import knockout_runner

            self._runner = knockout_runner(self.loaded)
        return self._runner


def _verify_output(
    runner: _Runner, trace: Trace, output: Output, choice: Choice, writer: ArchiveWriter, progress: Progress | None
) -> OutputKnockouts:
    check_same_model(trace, runner.loaded)
    chosen = _choose(Candidates(trace, output.row), choice)
    local: int = output.row["local"]
    known = {} if choice.again else known_effects(trace, local)
    fresh = [source for source, _ in chosen if source.key not in known]
    effects: dict[tuple[Any, ...], tuple[float, float]] = {}
    now = time.time_ns() // 1_000_000
    if fresh:
        measured = _measure(runner, trace, output, fresh, progress)
        writer.annotate(trace.trace_id, effect_tables(local, [(s, *e) for s, e in zip(fresh, measured, strict=True)], now))
        effects = {source.key: effect for source, effect in zip(fresh, measured, strict=True)}
    found = []
    for source, drawn in chosen:
        if source.key in effects:
            found.append(Knockout(source, *effects[source.key], created_at=now, random=drawn))
        else:
            row = known[source.key]
            found.append(Knockout(source, row["effect"], row["effect_logp"], row["created_at"], random=drawn, known=True))
    return OutputKnockouts(output.row, choice.kind, tuple(found))


def _choose(candidates: Candidates, choice: Choice) -> list[tuple[Source, bool]]:
    """Give the sources and whether each was drawn at random."""
    if choice.names:
        return [(candidates.named(choice.kind, name), False) for name in dict.fromkeys(choice.names)]
    every = candidates.of_kind(choice.kind)
    rest = every[choice.top :]
    drawn = random.Random(choice.seed).sample(range(len(rest)), min(choice.controls, len(rest)))
    return [(source, False) for source in every[: choice.top]] + [(rest[index], True) for index in sorted(drawn)]


def _measure(
    runner: _Runner, trace: Trace, output: Output, sources: Sequence[Source], progress: Progress | None
) -> list[tuple[float, float]]:
    """Give the effects (on `explained`, on log p) of removing each source."""
    from tracestore.extract.knockouts.removal import Removal

    ids = prompt_tokens(trace)
    base, *found = runner.get().measure(ids, target_of(trace, output), [Removal(), *(s.removal for s in sources)], progress=progress)
    row = output.row
    scale = max(abs(row["explained"]), row["logit_std"])
    if not abs(base.explained - row["explained"]) <= REPLAY_TOLERANCE * scale:
        raise BadInputError(
            f"the model explains {base.explained:.4f} where the trace recorded {row['explained']:.4f} logits: it does not compute what was "
            "traced (another version of its code or another device?); trace the prompt again"
        )
    return [(one.explained - base.explained, one.logp - base.logp) for one in found]


def prompt_tokens(trace: Trace) -> list[int]:
    """Give the token ids of a trace in order. Raises BadInputError where they were not kept."""
    if trace.text is None:
        raise BadInputError(f"trace {trace.trace_id} was kept without its text (--no-text): its prompt cannot be run again")
    rows = sorted(trace.table("Token").select(["pos", "token_id"]).to_pylist(), key=lambda row: row["pos"])
    return [row["token_id"] for row in rows]


def target_of(trace: Trace, output: Output) -> Target:
    """Say what is read for an Output: its token, or for a span the tokens that follow each of its positions."""
    from tracestore.extract.knockouts.removal import Target

    row = output.row
    if row.get("first_pos") is None:
        tokens: tuple[int, ...] = (row["token_id"],)
    else:
        ids = prompt_tokens(trace)
        tokens = (*ids[row["first_pos"] + 1 : row["pos"] + 1], row["token_id"])
    return Target(row["pos"], tokens, row["gauge"], row["foil_token_id"])


def check_same_model(trace: Trace, loaded: LoadedModel) -> None:
    """Raise BadInputError unless a trace was computed by this very model, saying what differs where that can be told."""
    header = trace.header
    if header["model_fingerprint"] != loaded.fingerprint:
        config = loaded.config
        shape = (getattr(config, "num_hidden_layers", None), getattr(config, "num_attention_heads", None))
        recorded = (header["n_layers"], header["n_heads"])
        if None not in shape and shape != recorded:
            what = f"its configuration differs ({shape[0]} layers of {shape[1]} heads now, {recorded[0]} of {recorded[1]} in the trace)"
        else:
            what = "it has the same layers and heads, so its weights or another entry of its configuration changed"
        who = (
            "the model has changed since" if header["model_id"] == loaded.model_id else f"it is not {header['model_id']}, which was traced"
        )
        raise BadInputError(
            f"{loaded.model_id}: {who}: {what}; fingerprint {loaded.fingerprint[:12]} now, {header['model_fingerprint'][:12]} in trace "
            f"{trace.trace_id}. Restore that model, or trace again"
        )
    if header["dtype"] != loaded.dtype:
        raise BadInputError(
            f"the trace was computed in {header['dtype']} and the model is loaded in {loaded.dtype}: load it as it was traced"
        )
