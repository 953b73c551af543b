"""Judge the numbers of an admitted model against its own untouched forward pass and an independent frozen function.

    J1 logits     the explained quantity (raw, centred, foil) equals the untouched model's own logits
    J2 causality  changing a token leaves every earlier logit as it was
    J3 reference  the independent function reproduces the logits and is affine: only then does it prove anything
    J4 scores     score of token j = what doubling the hidden state of j at the first layer adds; bias = what is left at zero
    J5 states     relevance of a State = what doubling it adds, at every layer
    J6 heads      relevance of a Head = what is lost when a row of its attention probabilities is set to zero
    J7 edges      VALUE edge + the bias its probability carries = what is lost when that probability alone is set to zero
    J8 attention  the probability kept with an edge = the model's own, in its eager attention; no edge looks forward
    J9 nodes      in + bias = relevance = out for every State, Head and Mlp, summed here again from the returned arrays

J4 to J7 use `reference`, which knows neither the engine's family tables nor its formulas nor its gradient. Errors are relative to
max(|explained|, standard deviation of the logits). J1 runs as a user would; the rest in float64 throughout where the model allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from tracestore.extract.attribute import Attributor
from tracestore.extract.attribution import OutputAttribution, TargetSpec
from tracestore.extract.sweep.reference import Reference, make_reference
from tracestore.extract.sweep.replay import Wide
from tracestore.model import PruningOptions

EVERYTHING: Final = PruningOptions(keep=1.0, max_edges=10_000_000)
NAMES: Final = ("logits", "causality", "reference", "scores", "states", "heads", "edges", "attention", "nodes")
TIGHT, OWN, SINGLE = 1e-9, 1e-5, 1e-4
"""Tolerances: float64 throughout; against the model's own logits (norms in float32 inside a float64 model); a float32 model."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check: the largest relative error and what was allowed."""

    name: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Is the error a number within tolerance?"""
        return self.error <= self.tolerance


@dataclass(slots=True)
class Case:
    """One explained prediction beside its reference: `pick` turns logits [V] into the explained quantity."""

    found: OutputAttribution
    reference: Reference
    scale: float

    def pick(self, logits: Tensor) -> float:
        """Read the explained quantity from logits [T, V]."""
        return _quantity(logits[self.found.pos], self.found)

    def change(self, logits: Tensor) -> float:
        """Tell how much the explained quantity differs from the recorded one."""
        return self.pick(logits) - self.pick(self.reference.logits)

    def error(self, found: float, wanted: float) -> float:
        """Give a relative error."""
        return abs(found - wanted) / self.scale


def judge(model: Any, input_ids: Tensor, attributor: Attributor | None = None) -> list[Verdict]:
    """Check an admitted model on `input_ids` [1, T]; raises ReplayError when no reference can be made for it."""
    attributor = attributor or Attributor(model)
    wide = next(model.parameters()).dtype == torch.float64
    tight = TIGHT if wide else SINGLE
    verdicts = [
        Verdict("logits", _logits_error(attributor, model, input_ids), OWN if wide else SINGLE),
        Verdict("causality", _causality_error(model, input_ids), 1e-12 if wide else 1e-5),
    ]
    reference = make_reference(model, input_ids, wide=wide)
    verdicts.append(Verdict("reference", _reference_error(reference), tight))
    worst = dict.fromkeys(NAMES[3:], 0.0)
    with Wide() if wide else nullcontext():  # type: ignore[no-untyped-call]
        run = Attributor(model).run(input_ids)
        targets = (TargetSpec(-1), TargetSpec(run.length // 2, runner_up=True))
        cases = [_case(reference, run.attribute(target, EVERYTHING)) for target in targets]
    checks: dict[str, Callable[[Case], Iterator[float]]] = {
        "scores": _scores, "states": _states, "heads": _heads, "edges": _edges, "attention": _attention, "nodes": _nodes,
    }  # fmt: skip
    for case in cases:
        for name, check in checks.items():
            errors = list(check(case))
            worst[name] = max([worst[name], *errors]) if errors and np.isfinite(errors).all() else float("inf")
    return verdicts + [Verdict(name, error, tight) for name, error in worst.items()]


def _case(reference: Reference, found: OutputAttribution) -> Case:
    return Case(found, reference, max(abs(found.explained), found.logit_std))


def _quantity(row: Tensor, found: OutputAttribution) -> float:
    row = row.double()
    other = {"raw": 0.0, "centred": float(row.mean()), "foil": float(row[found.foil_token_id or 0])}[found.gauge]
    return float(row[found.token_id]) - other


def _logits_error(attributor: Attributor, model: Any, input_ids: Tensor) -> float:
    """Compare with the untouched model, its own attention kernel and number formats, for all three gauges."""
    with torch.no_grad():
        own = model(input_ids=input_ids, use_cache=False).logits[0].double()
    run = attributor.run(input_ids)
    errors = []
    for pos in (-1, input_ids.shape[1] // 2):
        for target in (TargetSpec(pos, gauge="raw"), TargetSpec(pos), TargetSpec(pos, token_id=7, foil_token_id=11)):
            found = run.attribute(target)
            row = own[found.pos]
            cap = attributor.reader.cap
            before = row if cap is None else cap * torch.atanh(row / cap)
            scale = max(abs(found.explained), found.logit_std)
            errors += [abs(found.logit - float(row[found.token_id])) / scale, abs(found.explained - _quantity(before, found)) / scale]
    return max(errors)


def _causality_error(model: Any, input_ids: Tensor) -> float:
    """Change one token at a time: earlier logits may not move."""
    with torch.no_grad():
        own = model(input_ids=input_ids, use_cache=False).logits[0]
        moved = []
        for pos in range(1, input_ids.shape[1]):
            changed = input_ids.clone()
            changed[0, pos:] = 5 + (changed[0, pos:] + 17) % 90
            other = model(input_ids=changed, use_cache=False).logits[0]
            moved.append(float((other[:pos] - own[:pos]).abs().max()))
    return max(moved) / float(own.std())


def _reference_error(reference: Reference) -> float:
    with torch.no_grad():
        own = reference.model(input_ids=reference.input_ids, use_cache=False).logits[0]
    length, scale = own.shape[0], float(reference.logits.std())
    parts = sum(reference.doubled(0, j) - reference.logits for j in range(length))
    doubled = reference.doubled(0) - reference.logits
    errors = [reference.replay() - reference.logits, doubled - parts, doubled + (_zero(reference) - reference.logits)]
    gap = float((reference.capped(reference.logits) - own).abs().max()) / scale
    return max([*(float(e.abs().max()) / scale for e in errors), 0.0 if gap <= SINGLE else float("inf")])


def _zero(reference: Reference) -> Tensor:
    return reference.replay({0: torch.zeros(reference.input_ids.shape[1], dtype=reference.logits.dtype)})


def _scores(case: Case) -> Iterator[float]:
    for pos in range(case.reference.logits.shape[0]):
        yield case.error(float(case.found.scores[pos]), case.change(case.reference.doubled(0, pos)))
    yield case.error(case.found.bias, case.pick(_zero(case.reference)))


def _states(case: Case) -> Iterator[float]:
    for layer in range(1, len(case.reference.layers)):
        for pos in {case.found.pos, layer % (case.found.pos + 1)}:
            yield case.error(float(case.found.flows.pre_relevance[layer, pos]), case.change(case.reference.doubled(layer, pos)))


def _pattern(case: Case, layer: int) -> tuple[int, Tensor] | None:
    """Give the number of a layer's one attention pattern, and the pattern [H, T, J]."""
    numbers = case.reference.patterns(layer)
    if len(numbers) != 1:
        return None
    pattern: Tensor = case.reference.records[numbers[0]].result
    return numbers[0], pattern.reshape(-1, *pattern.shape[-2:])


def _without(case: Case, number: int, pattern: Tensor, head: int, query: int, key: int | None) -> float:
    """Tell what the explained quantity loses when one probability (or with key None a row of them) is zero."""
    changed = pattern.clone()
    if key is None:
        changed[head, query] = 0.0
    else:
        changed[head, query, key] = 0.0
    shape = case.reference.records[number].result.shape
    return -case.change(case.reference.replay(changes={number: changed.reshape(shape)}))


def _places(case: Case) -> Iterator[tuple[int, int, int]]:
    """Choose (layer, head, query): the explained position and another one, a different head in each layer."""
    heads = case.found.flows.head_relevance.shape[1]
    for layer in range(len(case.reference.layers)):
        for head, query in ((layer % heads, case.found.pos), ((layer + 1) % heads, (2 * layer + 3) % (case.found.pos + 1))):
            yield layer, head, query


def _heads(case: Case) -> Iterator[float]:
    for layer, head, query in _places(case):
        found = _pattern(case, layer)
        if found is None:
            yield float("inf")
            continue
        yield case.error(float(case.found.flows.head_relevance[layer, head, query]), _without(case, *found, head, query, None))


def _edges(case: Case) -> Iterator[float]:
    edges, flows = case.found.graph.edges, case.found.flows
    weight = {
        (int(a), int(b), int(c), int(d)): float(w)
        for a, b, c, d, w in zip(edges.layer, edges.head, edges.query, edges.key, edges.weight, strict=True)
    }
    for layer, head, query in list(_places(case))[::2]:
        found = _pattern(case, layer)
        if found is None:
            yield float("inf")
            continue
        length = case.reference.logits.shape[0]
        row = found[1][head, query, :length].double()
        for key in {0, query // 2, max(query - 1, 0), query}:
            carried = float(flows.head_bias[layer, head, query]) * float(row[key]) / max(float(row.sum()), 1e-30)
            mine = weight.get((layer, head, query, key), 0.0) + carried
            yield case.error(mine, _without(case, *found, head, query, key))


def _attention(case: Case) -> Iterator[float]:
    edges = case.found.graph.edges
    yield 0.0 if len(edges) and bool((edges.key <= edges.query).all()) else float("inf")
    for layer in range(len(case.reference.layers)):
        found = _pattern(case, layer)
        if found is None:
            yield float("inf")
            continue
        mine = edges.layer == layer
        own = (found[1] * _sink_scale(case, layer, found[1])).double().numpy()[edges.head[mine], edges.query[mine], edges.key[mine]]
        yield float(np.abs(own - edges.attention[mine]).max(initial=0.0))


def _sink_scale(case: Case, layer: int, pattern: Tensor) -> Tensor:
    """Give the factor [H, T, 1] of a sink that is applied after the softmax: a sigmoid per head and query; one where there is none."""
    heads, length = pattern.shape[:2]
    records = [r for r in case.reference.records.values() if r.layer == layer and r.name == "aten.sigmoid"]
    found = next((r.result for r in records if tuple(r.result.shape) == (1, heads, length)), None)
    return torch.ones(heads, length, 1, dtype=pattern.dtype) if found is None else found.reshape(heads, length, 1).to(pattern.dtype)


def _nodes(case: Case) -> Iterator[float]:
    f = case.found.flows
    edges = case.found.graph.edges
    into, out = np.zeros_like(f.head_relevance), np.zeros_like(f.value_out)
    np.add.at(into, (edges.layer, edges.head, edges.query), edges.weight)
    np.add.at(out, (edges.layer, edges.key), edges.weight)
    heads = f.head_relevance.sum(1)
    after = f.residual_out + f.mlp_relevance + f.pre_bias[1:]
    final = np.zeros_like(f.pre_relevance[-1])
    final[case.found.pos] = case.found.explained
    allowed = TIGHT if case.reference.wide else SINGLE  # every edge was asked for
    yield 0.0 if np.abs(case.found.graph.head_dropped_in).sum() <= allowed * case.scale else float("inf")
    sums = [
        into + f.head_bias - f.head_relevance,
        f.reads + f.mlp_bias - f.mlp_relevance,
        f.pre_relevance[0] - case.found.scores,
        f.pre_relevance[-1] - final,
    ]
    if f.parallel:
        sums += [after + heads - f.pre_relevance[1:], f.residual_out + out + f.reads - f.pre_relevance[:-1]]
    else:
        sums += [after - f.pre_relevance[1:], f.residual_in + heads + f.mid_bias - f.mid_relevance]
        sums += [f.residual_out + f.reads - f.mid_relevance, f.residual_in + out - f.pre_relevance[:-1]]
    for difference in sums:
        yield float(np.abs(difference).max()) / case.scale


def worst(verdicts: list[Verdict]) -> Verdict:
    """Give the check that used most of its tolerance (NaN counts as the worst)."""
    return max(verdicts, key=lambda v: v.error / v.tolerance if np.isfinite(v.error) else float("inf"))
