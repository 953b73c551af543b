"""Sanity of an attribution: does it depend on the weights, leave what is irrelevant alone, and share what is duplicated?

weights      layers are randomised from the top downwards; scores must change (Adebayo et al., 2018): rank correlation with the original
padding      an irrelevant sentence is put in front; the order of the other tokens must stay: rank correlation, and the padding's share
duplicate    the evidence is said twice; its share must be divided, not doubled: share once, both shares together, smaller over larger
references   leave-one-out by two perturbations: how far do they agree with each other?
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch

from tracestore.evaluate.annotated import Annotated
from tracestore.evaluate.baselines.ablation import leave_one_out
from tracestore.evaluate.case import SINK, Case, Scores
from tracestore.evaluate.measures.edges import rank_correlation
from tracestore.evaluate.suites.questions import language_cases
from tracestore.extract.attribute import Attributor
from tracestore.extract.loading import LoadedModel
from tracestore.model import Item, SpanRequest

PADDING: Final = "The meeting room on the second floor has four windows. "
Scorer = Callable[[Case], Scores]


def randomised_weights(case: Case, scorer: Scorer, depths: Sequence[float] = (1 / 30, 0.5, 1.0)) -> list[dict[str, Any]]:
    """Randomise the top layers of a copy of the model, ever more of them; correlate the scores with the original ones."""
    before = scorer(case)[SINK + 1 : -1]
    rows = []
    model = copy.deepcopy(case.attributor.model)
    generator = torch.Generator().manual_seed(0)
    layers = len(case.attributor.layout.blocks)
    done = 0
    for depth in depths:
        wanted = max(1, round(depth * layers))
        attributor = Attributor(model, admit=False)
        for block in list(reversed(attributor.layout.blocks))[done:wanted]:
            for parameter in block.layer.parameters():
                if parameter.dim() > 1:
                    noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                    parameter.data.copy_(noise * parameter.data.std())
        done = wanted
        after = scorer(replace(case, attributor=Attributor(model, admit=False)))[SINK + 1 : -1]
        rows.append({"check": "weights", "id": case.id, "layers": wanted, "rho": rank_correlation(before.tolist(), after.tolist())})
    return rows


def padded(loaded: LoadedModel, annotated: Annotated, scorer: Scorer) -> dict[str, Any] | None:
    """Put an irrelevant sentence in front; None where the prediction itself changes."""
    item = annotated.item
    shifted = tuple(replace(span, start=span.start + len(PADDING), end=span.end + len(PADDING)) for span in item.evidence)
    longer = replace(annotated, item=replace(item, prompt=PADDING + (item.prompt or ""), evidence=shifted))
    plain, longer_case = language_cases(loaded, [annotated, longer])
    if plain.token_id != longer_case.token_id:
        return None
    extra = longer_case.length - plain.length
    before, after = scorer(plain)[SINK + 1 : -1], np.abs(scorer(longer_case))
    own = after[SINK + 1 + extra : -1]
    mass = float(after[SINK + 1 :].sum())
    return {
        "check": "padding",
        "id": annotated.id,
        "rho": rank_correlation(before.tolist(), own.tolist()),
        "share": float(after[SINK + 1 : SINK + 1 + extra].sum() / mass) if mass > 0 else float("nan"),
    }


def duplicated(loaded: LoadedModel, fact: str, question: str, scorer: Scorer) -> dict[str, Any]:
    """Say a fact once and twice before the question."""
    once = Annotated(Item(prompt=f"{fact} {question}", evidence=(SpanRequest("evidence", 0, len(fact)),), id="once"), "duplicate", "report")
    spans = (SpanRequest("evidence", 0, len(fact)), SpanRequest("evidence", len(fact) + 1, 2 * len(fact) + 1))
    twice = Annotated(Item(prompt=f"{fact} {fact} {question}", evidence=spans, id="twice"), "duplicate", "report")
    shares = []
    for case in language_cases(loaded, [once, twice]):
        mass = np.abs(scorer(case))
        mass[SINK] = 0.0
        shares.append([float(mass[list(step)].sum() / mass.sum()) for step in case.steps])
    first, second = shares[1]
    return {
        "check": "duplicate",
        "id": fact,
        "once": shares[0][0],
        "both": first + second,
        "smaller_over_larger": min(first, second) / max(first, second) if max(first, second) > 0 else float("nan"),
    }


def reference_agreement(case: Case) -> dict[str, Any]:
    """Correlate leave-one-out by knockout of columns with leave-one-out by mean embedding."""
    column, mean = (leave_one_out(case, "column")[SINK + 1 : -1], leave_one_out(case, "mean")[SINK + 1 : -1])
    return {"check": "references", "id": case.id, "rho": rank_correlation(column.tolist(), mean.tolist())}
