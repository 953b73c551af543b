"""What knockouts found, for programs (`table`, `to_dict`) and for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracestore.knockouts.effects import agrees
from tracestore.knockouts.sources import Kind, Source

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Knockout:
    """One source, what the trace says of it (`estimate`) and what removing it did.

    `effect` is `explained` without it minus `explained` as it is (logits), `effect_logp` the same of the log probability (nats): a source
    that supported the prediction has a negative effect. `random` was drawn as a control; `known` was measured before.
    """

    source: Source
    effect: float
    effect_logp: float
    created_at: int
    random: bool = False
    known: bool = False

    @property
    def estimate(self) -> float:
        """What the trace says that the source contributes, logits."""
        return self.source.estimate

    @property
    def agrees(self) -> bool:
        """Do trace and model say the same about the direction?"""
        return agrees(self.estimate, self.effect)

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values."""
        source = self.source
        return {
            "kind": source.stored,
            "source": source.name,
            "text": source.text,
            "layer": source.layer,
            "head": source.head,
            "query_pos": source.query_pos,
            "estimate": self.estimate,
            "effect": self.effect,
            "effect_logp": self.effect_logp,
            "gap": self.effect + self.estimate,
            "agrees": self.agrees,
            "random": self.random,
            "known": self.known,
            "created_at": self.created_at,
        }


@dataclass(frozen=True, slots=True)
class OutputKnockouts:
    """The knockouts of one explained prediction; `row` its Output, `kind` what was asked for."""

    row: Mapping[str, Any]
    kind: Kind
    knockouts: tuple[Knockout, ...]

    @property
    def output_id(self) -> str:
        """Name of the prediction."""
        return str(self.row["output_id"])

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's correlation of -estimate and effect; None with fewer than three sources or without any spread."""
        return _spearman([-k.estimate for k in self.knockouts], [k.effect for k in self.knockouts])

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values."""
        own = {name: self.row[name] for name in ("output_id", "pos", "token_id", "text", "foil_text", "gauge", "explained", "prob")}
        agree = sum(k.agrees for k in self.knockouts)
        summary = {"kind": self.kind, "agree": agree, "rank_correlation": self.rank_correlation}
        return own | summary | {"knockouts": [k.to_dict() for k in self.knockouts]}


@dataclass(frozen=True, slots=True)
class KnockoutReport:
    """What a verification did: `measured` now and `known` before; `failures` by output_id; `skipped` outputs of other models."""

    outputs: tuple[OutputKnockouts, ...]
    measured: int = 0
    known: int = 0
    skipped: int = 0
    failures: Mapping[str, str] | None = None

    @property
    def table(self) -> pa.Table:
        """All knockouts as one table, with the output_id."""
        import pyarrow as pa

        rows = [{"output_id": output.output_id, **k.to_dict()} for output in self.outputs for k in output.knockouts]
        return pa.Table.from_pylist(rows)

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values."""
        return {
            "measured": self.measured,
            "known": self.known,
            "skipped": self.skipped,
            "failures": dict(self.failures or {}),
            "outputs": [output.to_dict() for output in self.outputs],
        }


def _spearman(one: list[float], other: list[float]) -> float | None:
    if len(one) < 3:
        return None
    a, b = _ranks(one), _ranks(other)
    mean = (len(one) - 1) / 2
    spread = sum((x - mean) ** 2 for x in a) * sum((y - mean) ** 2 for y in b)
    if spread == 0:
        return None
    return float(sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True)) / spread**0.5)


def _ranks(values: list[float]) -> list[float]:
    """Rank from 0, equal values sharing the mean of their places."""
    order = sorted(values)
    first = {value: order.index(value) for value in set(values)}
    return [first[value] + (order.count(value) - 1) / 2 for value in values]
