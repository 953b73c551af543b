"""Write the outcome of a sweep as the page `docs/families.md`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import torch
import transformers

from tracestore.extract.sweep.judge import OWN, SINGLE, TIGHT
from tracestore.extract.sweep.outcome import PARTS_IDENTITIES, SECANT_IDENTITIES, Outcome, Result

_HEAD: Final = """\
# Model families

Written by `make sweep` (`python -m tracestore.extract.sweep`); do not edit by hand.

Every class of transformers' causal-LM mapping ({total} names, transformers {transformers}, torch {torch}), as a tiny random model:

| outcome | names | distinct classes |
|---|---|---|
{counts}

**exact**: admitted by the engine, and every check below holds. **refused**: the engine refuses the model by name, with the reason in the
table, before it gives a number. **not built**: transformers itself could not build or run the class here; nothing is claimed about it.
{bad}
## How it was made

Each class gets a small configuration (mostly {layers}, width 32, four heads, grouped keys where the class allows them, windows of
4 tokens, four experts, biases, caps and scales switched on), random weights with random biases and gains, and a prompt of 10 tokens.
What the engine admits is judged against the *untouched* model: its own code, its own attention.

{checks}

J3 to J8 use a second frozen function that shares no code with the engine: a dispatch mode under the untouched model notes the result of
every softmax, norm scale, gate and routing choice, and plays it back while hidden states or single attention probabilities are changed.
That function is affine, so differences of its values are exact derivatives. Tolerances, relative to max(|explained|, standard deviation
of the logits): {tight:.0e} in float64; {own:.0e} for J1, because transformers computes norms and rotary embeddings in float32 inside a
float64 model; {single:.0e} for classes that run in float32 only. Causality (J2) is exact to rounding.

The column `secant` is that method on the same model: the identities {secant} of `tracestore validate` hold
(among them: VALUE, KEY and QUERY edges of a middle layer equal those computed from explicit vectors and the written-out rule), or it is
refused.

The last two columns are compositions and exact paths by either method, for the last position: identity {parts} holds (the
compositions of every reader add up to its relevance, the children of every entry of the path search to the entry, all leaves and open
entries to the explained quantity). **refused**: a trace by that method has neither, its edges and scores being exact all the same.
**compositions alone**: it has no paths. The reasons stand below the table.

What this proves: the numbers of these classes are the exact decomposition that the method page defines, on models of this shape. What it
does not prove: anything about other settings of the same class (the engine therefore checks closure again on every model that it is
given), or that the decomposition is a faithful explanation.

"""


_COLUMNS: Final = (
    "model_type",
    "class",
    "read by",
    "dtype",
    "worst check",
    "error",
    "secant",
    "compositions, paths by frozen",
    "compositions, paths by secant",
)


def report(outcomes: Sequence[Outcome]) -> str:
    """Give the page."""
    parts = [_head(outcomes)]
    exact = [o for o in outcomes if o.result == "exact"]
    parts.append(f"## Exact\n\n| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|\n")
    for o in exact:
        error = 0.0 if o.error is None else o.error
        further = " | ".join(_cell(said.partition(":")[0]) for said in (o.secant, o.parts_frozen, o.parts_secant))
        parts.append(f"| `{o.model_type}` | {o.class_name} | {o.family} | {o.dtype} | {o.check} | {error:.0e} | {further} |\n")
    reasons = list(_reasons(exact))
    if reasons:
        parts.append("\n## Exact, with something refused\n\n| model_type | what | reason |\n|---|---|---|\n")
        parts += [f"| `{name}` | {what} | {_cell(reason)} |\n" for name, what, reason in reasons]
    for result, title in (("wrong", "Wrong"), ("failed", "Failed"), ("refused", "Refused"), ("not built", "Not built")):
        chosen = [o for o in outcomes if o.result == result]
        if chosen:
            parts.append(f"\n## {title}\n\n| model_type | class | reason |\n|---|---|---|\n")
            parts += [f"| `{o.model_type}` | {o.class_name} | {_cell(o.reason)} |\n" for o in chosen]
    return "".join(parts)


def _reasons(exact: Sequence[Outcome]) -> Iterator[tuple[str, str, str]]:
    """Give model_type, what is refused, and why."""
    for o in exact:
        said = {
            "the method secant": o.secant,
            "compositions, paths by frozen": o.parts_frozen,
            "compositions, paths by secant": o.parts_secant,
        }
        yield from ((o.model_type, what, text.partition(": ")[2]) for what, text in said.items() if ": " in text)


def counts(outcomes: Sequence[Outcome]) -> dict[Result, int]:
    """Count the names by outcome."""
    return dict(Counter(o.result for o in outcomes))


def _head(outcomes: Sequence[Outcome]) -> str:
    from tracestore.extract.sweep import judge

    found = counts(outcomes)
    order: list[Result] = ["exact", "refused", "not built", "wrong", "failed"]
    rows = [
        f"| {r} | {found.get(r, 0)} | {len({o.class_name for o in outcomes if o.result == r})} |"
        for r in order
        if found.get(r) or r in ("exact", "refused", "wrong")
    ]
    bad = found.get("wrong", 0) + found.get("failed", 0)
    listed = [line.strip() for line in (judge.__doc__ or "").splitlines() if line.startswith("    J")]
    return _HEAD.format(
        total=len(outcomes),
        transformers=transformers.__version__,
        torch=torch.__version__.split("+")[0],
        counts="\n".join(rows),
        bad="" if not bad else "**wrong**: admitted, but a check failed or could not be made. **failed**: an unexpected exception.\n",
        layers="four layers",
        checks="\n".join(f"- {line}" for line in listed),
        tight=TIGHT,
        own=OWN,
        single=SINGLE,
        secant=", ".join(SECANT_IDENTITIES),
        parts=", ".join(PARTS_IDENTITIES),
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
