"""Identities I0 to I13 of the decomposition, on any admitted model: what closes, and how exactly.

Errors in logits are relative to max(|explained|, standard deviation of the logits): a ratio to the explained quantity alone is
meaningless when target and foil are nearly tied.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tracestore.errors import ConservationError
from tracestore.extract import identity_checks as checks
from tracestore.extract.admission import HALF_LOGIT_TOLERANCE
from tracestore.extract.attention import seen_keys
from tracestore.extract.attribute import Attributor, ForwardPass
from tracestore.extract.attribution import KEY, QUERY, VALUE, Floats, OutputAttribution, TargetSpec
from tracestore.extract.output_tables import OutputNames, output_tables
from tracestore.extract.table_checks import conservation_error
from tracestore.model import Method, PruningOptions

PADDING_TOLERANCE = 1e-3
EVERY_EDGE = PruningOptions(keep=1.0, max_edges=1 << 40)
FLOAT32_TOLERANCE, FLOAT64_TOLERANCE, FLOAT32_PARTS_TOLERANCE = 1e-4, 1e-10, 1e-6

MEANING = {
    "I0": "the frozen forward pass gives the model's own logits",
    "I1": "rows of the attention pattern sum to 1",
    "I2": "decomposed vectors and output bias add up to the attention module's output",
    "I3": "the residual stream is what was written to it",
    "I4": "a frozen norm is linear in any split of the residual stream",
    "I5": "direct logit attribution adds up",
    "I6": "edges into a head add up to its relevance",
    "I7": "scalar edges equal naive vector edges",
    "I8": "token scores and biases add up to the logit",
    "I9": "conservation at every node of every layer",
    "I10": "no edge from a later token or from outside the window",
    "I11": "target minus foil is the difference; a padded batch equals a batch of one",
    "I12": "conservation at every stored node after pruning",
    "I13": "compositions of a reader add up to its relevance, children of a path to the path",
}


@dataclass(frozen=True, slots=True)
class IdentityResult:
    """One identity: relative error, what is allowed, and the verdict."""

    id: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Does it hold?"""
        return self.error <= self.tolerance


@dataclass(frozen=True, slots=True)
class Subject:
    """What the identities are checked on: a kept forward pass of one prompt and an unpruned attribution of its last position."""

    attributor: Attributor
    ids: Tensor  # [1, T]
    run: ForwardPass
    found: OutputAttribution
    method: Method

    @property
    def scale(self) -> float:
        """What errors in logits are relative to."""
        return max(abs(self.found.explained), self.found.logit_std)


def check_identities(
    attributor: Attributor, ids: Tensor, method: Method = "frozen", *, naive_tokens: int = 5, only: Collection[str] = tuple(MEANING)
) -> list[IdentityResult]:
    """Check I0 to I13 (or `only` some) of `method` on a short prompt `ids` [T]; `naive_tokens` bounds the naive computation of I7.

    I13 is left out for a model that has no compositions by the method.
    """
    row = ids[None] if ids.dim() == 1 else ids
    run = attributor.run(row, method=method, keep=True)
    subject = Subject(attributor, row, run, run.attribute(TargetSpec(-1), EVERY_EDGE), method)
    exact = FLOAT64_TOLERANCE if run.final_state(0).dtype == torch.float64 else FLOAT32_TOLERANCE
    # transformers computes norms and RoPE in float32 whatever the weights are, and tables hold float32
    logits = HALF_LOGIT_TOLERANCE if attributor.half else max(FLOAT32_PARTS_TOLERANCE, exact)
    tables = max(FLOAT32_PARTS_TOLERANCE * 10, exact)
    tolerances = {"I0": logits, "I12": tables}
    functions: dict[str, Callable[[Subject], float]] = {
        "I0": _same_logits,
        "I1": lambda s: checks.row_sums(s.run),
        "I2": lambda s: checks.attention_output(s.run),
        "I3": lambda s: checks.residual_stream(s.run),
        "I4": lambda s: checks.norm_split(s.run),
        "I5": _direct_logits,
        "I6": lambda s: (
            float(np.abs(s.found.flows.attention_in[0] + s.found.flows.head_bias - s.found.flows.head_relevance).max()) / s.scale
        ),
        "I7": lambda s: _naive(s, naive_tokens),
        "I8": lambda s: s.found.closure,
        "I9": lambda s: s.found.node_error,
        "I10": _outside,
        "I11": lambda s: max(_linear_in_targets(s), _padding(s)),
        "I12": _stored,
        "I13": _compositions_and_paths,
    }
    without = {"I13"} if "I13" in only and attributor.without_compositions(method) is not None else set()
    chosen = [(name, function) for name, function in functions.items() if name in only and name not in without]
    return [IdentityResult(name, float(function(subject)), tolerances.get(name, exact)) for name, function in chosen]


def _same_logits(subject: Subject) -> float:
    row = subject.run.logits_row(subject.run.length - 1)
    gap = subject.run.measure_replay_gap()
    return gap / max(float(row.abs().max()), 1e-30)


def _direct_logits(subject: Subject) -> float:
    found, reader = subject.found, subject.attributor.reader
    vector, bias = reader.direction(found.gauge, found.token_id, found.foil_token_id, subject.run.final_state(found.pos))
    return checks.direct_logit_attribution(subject.run, found.pos, vector, bias, found.explained) / subject.scale


def dense_edges(found: OutputAttribution, kind: int = VALUE) -> Floats:
    """Spread the stored edges of one kind over an array [L, H, T, T] (query, key)."""
    layers, heads, length = found.flows.head_relevance.shape
    out = np.zeros((layers, heads, length, length))
    edges = found.graph.edges.take(found.graph.edges.kind == kind)
    out[edges.layer, edges.head, edges.query, edges.key] = edges.weight
    return out


def _every_edge(found: OutputAttribution) -> Floats:
    return np.stack([dense_edges(found, kind) for kind in (VALUE, KEY, QUERY)])


def _naive(subject: Subject, tokens: int) -> float:
    run = subject.attributor.run(subject.ids[:, :tokens], method=subject.method, keep=True)
    found = run.attribute(TargetSpec(-1), EVERY_EDGE)
    vector, _ = subject.attributor.reader.direction(found.gauge, found.token_id, None, run.final_state(found.pos))
    layer = len(run.capture.layout.blocks) // 2
    naive = checks.naive_edges(run, layer, found.pos, vector)
    gaps = [np.abs(edges.cpu().to(torch.float64).numpy() - dense_edges(found, kind)[layer]).max() for kind, edges in naive.items()]
    return float(max(gaps)) / max(abs(found.explained), found.logit_std)


def _outside(subject: Subject) -> float:
    """Count edges that may not be."""
    edges = subject.found.graph.edges
    wrong = int((edges.key > edges.query).sum())
    for layer, kept in subject.run.capture.state.kept.items():
        mask = kept.pattern.mask
        if mask is None:
            continue
        allowed = seen_keys(mask)[0].cpu().numpy()
        mine = edges.layer == layer
        head = edges.head[mine] if allowed.shape[0] > 1 else np.zeros(int(mine.sum()), dtype=np.int64)
        wrong += int((~allowed[head, edges.query[mine], edges.key[mine]]).sum())
    return float(wrong)


def _linear_in_targets(subject: Subject) -> float:
    run, token = subject.run, subject.found.token_id
    both = run.attribute(TargetSpec(-1, token, runner_up=True), EVERY_EDGE)
    one, other = (run.attribute(TargetSpec(-1, t, gauge="raw"), EVERY_EDGE) for t in (token, both.foil_token_id))
    gap = np.abs(_every_edge(one) - _every_edge(other) - _every_edge(both)).max()
    gap = max(gap, np.abs(one.scores - other.scores - both.scores).max(), abs(one.bias - other.bias - both.bias))
    return float(gap) / subject.scale


def _padding(subject: Subject) -> float:
    """Compare with the same prompt in a batch beside a longer one, padded left and right.

    A model that takes no positions and counts padding as text answers differently behind padding on the left: there is nothing to compare.
    """
    model, length = subject.attributor.model, subject.run.length
    pad = 3
    longer = torch.cat([subject.ids.flip(1), subject.ids[:, :pad]], 1)
    padding = subject.ids[:, :1].expand(1, pad)
    positions = "position_ids" in inspect.signature(model.base_model.forward).parameters
    worst = 0.0
    for left in (True, False):
        row = torch.cat([padding, subject.ids] if left else [subject.ids, padding], 1)
        mask = torch.ones(2, length + pad, dtype=torch.long, device=row.device)
        mask[0, : pad if left else None] = 0
        if not left:
            mask[0] = torch.tensor([1] * length + [0] * pad, device=row.device)
        ids = torch.cat([row, longer])
        where = (mask.cumsum(1) - 1).clamp_min(0) if positions else None
        if left and not positions and _moves(model, subject.ids, ids, mask):
            continue
        run = subject.attributor.run(ids, attention_mask=mask, position_ids=where, method=subject.method)
        start = pad if left else 0
        found = run.attribute(TargetSpec(start + length - 1, subject.found.token_id), EVERY_EDGE, batch=0)
        span = slice(start, start + length)
        gap = np.abs(found.scores[span] - subject.found.scores).max()
        gap = max(gap, np.abs(_every_edge(found)[..., span, span] - _every_edge(subject.found)).max())
        outside = np.ones(length + pad, dtype=bool)
        outside[span] = False
        worst = max(worst, gap, np.abs(found.scores[outside]).max(), np.abs(found.total)[outside].max())
    return float(worst) / subject.scale


def _moves(model: Any, alone: Tensor, ids: Tensor, mask: Tensor) -> bool:
    """Tell whether the untouched model's last logits for `alone` [1, T] differ where it is the first row of a padded batch."""
    with torch.no_grad():
        own = model(input_ids=alone, use_cache=False).logits[0, -1]
        padded = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[0, -1]
    return bool((padded - own).abs().max() > PADDING_TOLERANCE * own.std())


def _stored(subject: Subject) -> float:
    found = subject.run.attribute(TargetSpec(-1), PruningOptions(keep=0.6))
    length = subject.run.length
    places, ids = np.arange(1, length + 1), subject.ids[0].cpu().numpy()
    built = output_tables(found, OutputNames("validate", "validate"), first_local=length + 1, token_locals=places, token_ids=ids)
    return conservation_error(built.tables) / subject.scale


def _compositions_and_paths(subject: Subject) -> float:
    run = subject.attributor.run(subject.ids, method=subject.method, tap=True)
    paths = 0 if subject.attributor.without_paths(subject.method) is not None else 1
    try:
        found = run.attribute(TargetSpec(-1), compose=True, paths=paths)
    except ConservationError:
        return float("inf")
    assert found.compositions is not None
    errors = [float(np.abs(found.compositions.weight.sum(0) - found.compositions.relevance).max())]
    if found.paths is not None:
        errors += [found.paths.split_error, abs(found.paths.total - found.explained)]
    return max(errors) / subject.scale
