"""When does the look-up appear? Traces of a pointer-chase model saved along its training: `python -m bench.checkpoints`.

Trains the model on first use (a minute or two of one core; then it is in the cache), traces every checkpoint on the same items,
compares each with the finished model, and writes docs/checkpoints.md.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from tracestore.compare import Comparison, Profile, compare_models
from tracestore.compare.profiles import trace_profiles
from tracestore.evaluate.suites.pointer_chase import PointerChase
from tracestore.evaluate.suites.pointer_chase_model import Checkpoint, pointer_chase_model
from tracestore.evaluate.suites.pointer_chase_recipe import Recipe
from tracestore.extract.loading import load_model
from tracestore.extract.trace import trace
from tracestore.model import Method, TraceOptions

PAGE: Final = Path(__file__).parents[1] / "docs" / "checkpoints.md"
SEED: Final = 5

TEXT: Final = """# When a mechanism appears: checkpoints compared

A model that is saved along its training is as many models. Their traces carry `checkpoint_step` (read from the name of the folder,
`step-100`, or from `trainer_state.json`), and meet by the prompt:

```
tracestore trace --items chase.jsonl --model run/step-75 --archive traces/
tracestore trace --items chase.jsonl --model run/step-800 --archive traces/
tracestore compare run/step-75@75 run/step-800@800 --archive traces/
```

In a store the queries `compare_models` (heads), `compare_models_tokens` (driving tokens), `compare_models_motifs` (motifs of exact paths)
and `compare_variants`, `compare_variants_tokens`, `compare_variants_motifs` (two variants of the same items) ask the same in Cypher.

## Example

The pointer chase: a shuffled table of {keys} entries `k=v`, a start x0, and {steps} look-ups x1 = s[x0], x2 = s[x1] and so on. The one
true driver of every step is the table entry whose key is the step before. A Llama with 3 layers of 4 heads learns it in some hundred
updates. `python -m bench.checkpoints` traced {items} sequences ({outputs} look-ups, method `{method}`) at every saved checkpoint:

| update | steps right, % | true driver first, % | its share, mean | token shift to the end | head shift to the end | heads in use |
|---|---|---|---|---|---|---|
{rows}

*Steps right* is measured on 1 000 held-out sequences; *true driver first* counts the look-ups whose true entry has the largest `direct` of
all entries of the table (by chance one in {keys}); *shift* is the total variation between a checkpoint's shares and the finished model's,
mean over the look-ups, 0 to 1; *heads in use* hold a mean share of 0.02 or more.

{reading}

Heads between update {before} and update {end}, those that cross a mean share of 0.02 first:

| head | share at {before} | share at {end} | |
|---|---|---|---|
{heads}

## A regression test of mechanisms

A model that was tuned, pruned or quantised may give the same answers for other reasons. `assert` compares two runs over the same items, in
archives or stores, and fails (exit code 7) when a mechanism moved though the answer stayed:

```
tracestore assert --baseline good/ --candidate new/ --junit mechanism.xml
```

Predictions meet by prompt, method and place in the answer. For each, three distances are measured, each a total variation: the share that
would have to move, 0 (the same) to 1 (nothing in common). *Tokens*: the shares of the driving tokens (`direct`, sink left out). *Heads*:
the shares of the heads. *Motifs*: those of the motifs of the stored paths, where both sides have paths. A distance above its threshold
(`--max-token-shift`, `--max-head-shift`, `--max-motif-shift`, 0.25 each by default) fails the prediction; `--min-overlap` also asks for a
rank-biased overlap of the drivers (persistence 0.9). A prediction whose explained token changed, or that is no longer (or only now) the
model's own first choice, is reported apart and fails nothing; so are predictions without a counterpart. When nothing matches, or a side
holds two traces of one prompt, the command says so and ends with exit code 3.

{noise}
"""


NOISE: Final = """The default leaves much room for arithmetic: the demo's 15 prompts (30 predictions) traced in float32 and again with
weights in bfloat16 (`tracestore trace --items tracestore/demo/prompts.jsonl --model demo --dtype bfloat16`) differ by at most 0.0014
(tokens) and 0.006 (heads), measured once. The checkpoints above show the other end: what still learns moves by 0.1 to 0.3 while its answers
are nearly all right."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A checkpoint and what its traces say: rate and mean share of the true driver."""

    checkpoint: Checkpoint
    profiles: Sequence[Profile]
    first: float
    share: float


def main() -> None:
    """Train or find the model, trace it, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=400, help="updates of the training")
    parser.add_argument("--items", type=int, default=20, help="sequences traced at every checkpoint")
    parser.add_argument("--method", choices=("frozen", "secant"), default="frozen")
    given = parser.parse_args()
    task = PointerChase()

    def say(update: int, loss: float) -> None:
        if update % 50 == 0:
            print(f"update {update}: loss {loss:.3f}", file=sys.stderr, flush=True)

    saves = tuple(save for save in (0, 25, 50, 60, 70, 80, 90, 100, 150, 200) if save < given.updates)
    trained = pointer_chase_model(task, Recipe(updates=given.updates, saves=saves), on_update=say)
    seen = [look(checkpoint, task, given.items, given.method) for checkpoint in trained.checkpoints]
    PAGE.write_text(page(task, seen, given.items, given.method), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))


def look(checkpoint: Checkpoint, task: PointerChase, items: int, method: Method) -> Seen:
    """Trace a checkpoint on the same items as every other."""
    print(f"step {checkpoint.step} ...", file=sys.stderr, flush=True)
    loaded = load_model(checkpoint.folder)
    drivers = task.drivers(task.sample(items, torch.Generator().manual_seed(SEED))).tolist()
    profiles: list[Profile] = []
    hits: list[bool] = []
    shares: list[float] = []
    for item, true in zip(task.items(items, seed=SEED), drivers, strict=True):
        found = list(trace_profiles(trace(loaded, item, TraceOptions(method=method))))
        for profile, driver in zip(sorted(found, key=lambda p: p.answer_pos), true, strict=True):
            entries = {pos: share for pos, share in profile.tokens.items() if 1 <= pos <= task.keys}
            hits.append(max(entries, key=lambda pos: entries[pos]) == driver)
            shares.append(profile.tokens[driver])
        profiles += found
    return Seen(checkpoint, profiles, sum(hits) / len(hits), sum(shares) / len(shares))


def page(task: PointerChase, seen: Sequence[Seen], items: int, method: str) -> str:
    """Write the page."""
    end = seen[-1]
    against = [compare_models(one.profiles, end.profiles, names=("a", "b")) for one in seen]
    rows = [
        f"| {one.checkpoint.step} | {100 * one.checkpoint.accuracy:.1f} | {100 * one.first:.0f} | {one.share:.2f} "
        f"| {found.token_shift:.2f} | {found.head_shift:.2f} | {sum(head.share_a >= 0.02 for head in found.heads)} |"
        for one, found in zip(seen, against, strict=True)
    ]
    at = max(range(1, len(seen)), key=lambda i: seen[i].first - seen[i - 1].first)
    before, after = seen[at - 1], seen[at]
    changes = sorted(against[at - 1].heads, key=lambda head: (head.change == "kept", -abs(head.difference)))
    return TEXT.format(
        keys=task.keys,
        steps=task.steps,
        items=items,
        outputs=items * task.steps,
        method=method,
        rows="\n".join(rows),
        reading=reading(before, after, against[at - 1], against[at]),
        before=before.checkpoint.step,
        end=end.checkpoint.step,
        noise=NOISE,
        heads="\n".join(f"| {h.name} | {h.share_a:.3f} | {h.share_b:.3f} | {h.change} |" for h in changes),
    )


def reading(before: Seen, after: Seen, was: Comparison, then: Comparison) -> str:
    """Say where the look-up appears."""
    rate = f"{100 * before.first:.0f} % of the look-ups before and in {100 * after.first:.0f} % after"
    right = f"{100 * before.checkpoint.accuracy:.1f} to {100 * after.checkpoint.accuracy:.1f} %"
    return textwrap.fill(
        f"The look-up appears between update {before.checkpoint.step} and update {after.checkpoint.step}: the true entry is first in "
        f"{rate}, while the steps that the model gets right rise from {right}, and the distance of the drivers to those of the finished "
        f"model falls from {was.token_shift:.2f} to {then.token_shift:.2f}.",
        140,
    )


if __name__ == "__main__":
    main()
