"""The prose of `docs/evaluation.md`; its numbers are measured by `docs/evaluate.py`."""

HEAD = """# How right is it?

Made by `make eval`; every number with its 95 % bootstrap interval over cases (2 000 resamples, paired where two methods are compared).
Model: the packaged SmolLM2-135M unless a suite trains or compiles its own. It is a small model that answers many of these items wrong:
no claim about *reasoning* rests on it; wrong answers are explained as they were given, and kept apart.

- **Known drivers**: the pointer chase (trained on the spot, five look-ups) and compiled circuits (transformers made from programs). There
  the tokens that decide an answer are known, step by step. *All steps found*: every true token is among the first n of the ranking, n the
  number of steps.
- **Marked evidence**: prompts, mathematics and logic, commonsense; a person (or the generator) marked what the answer rests on.
- **Removals**: the first tokens of an order are taken away (AOPC, comprehensiveness: higher is better) or alone are left (sufficiency:
  lower is better), logits. Two perturbations: no later position may read the token; its embedding is the vocabulary's mean. They agree with
  each other only in part (see Sanity), so neither is called the truth.
- Items are split by task and by prompt into *tuning* and *report*; tables are on report items unless they say otherwise. Reported here: 40
  sequences of the chase (200 predictions; 10 sequences for each of the families under Generality), 40 questions of each circuit, and of the
  suites of prompts: LANGUAGE_COUNTS (mixed over their tasks). Tasks never tuned on: all but facts, arithmetic, indirect objects, two hops,
  and two of ten commonsense categories. Wordings of `held_out` and `long` were mended until the model could answer most of them; no
  attribution was looked at. Frames of sentences repeat within a task, so items are not quite independent.
- `forwards`: processor time of a method over that of a plain forward pass of the same prompt (median); columns of one computation are each
  charged all of it. The machine had other work and the multiplications' AVX-512 kernels were used; Overhead was measured apart.

Methods with a dot are traces of this project or variants of its rule; the others are baselines, each described in
`tracestore/evaluate/baselines`. Columns of a trace: `drive`, the default ranking (below); `direct`, the size of attention edges into the
explained position; `total`, into all positions; `removal`, what hiding a token is estimated to take away; `score`, signed, adds up.
"""

LIMITS = """## Limits

- One small model carries the language suites. [How to run them on a larger one](evaluation-larger-models.md).
- Marked evidence is what a person finds relevant, not what the model used: a low agreement can be the model's doing.
- Removing a token makes a text that the model never saw. AOPC rewards whatever such texts are sensitive to.
- The proximity baselines (`alti`, `ifr`) measure L1 distances in the residual stream; in the compiled circuits that stream holds large
  constants (they make LayerNorm harmless), which is unfair to them there.
- Prompts are short (4 to about 100 tokens). Nothing here was measured on long contexts.
"""

PICTURE = """![AOPC of the methods, report prompts](evaluation/prompts-comprehensiveness_column.png)

Traced thoughts beside human reasoning (Fig. 3): [evidence, rationale and proof beside the trace](evaluation/beside-human-reasoning.html),
and one step graph beside its proof:

![Step graph beside a person's proof](evaluation/step-graph.png)
"""

READING = """### What follows

- Above random order, recency, raw attention, rollout, the plain gradient and IFR, by both perturbations: every rule of this project.
- Leave-one-out by columns is the order that the same perturbation was measured with. `secant` with halves is significantly below it there;
  `frozen`, `linear` and `secant` with a quarter for the scores (`secant_h25`) are not. `ablation_regression` (32 forward passes) is above
  all of them by columns; by mean embedding no difference is shown. On indirect objects every trace is clearly below leave-one-out
  (see Generality): unsigned columns cannot tell a name that is inhibited from one that supports.
- Compiled circuits: only rules that explain addresses find the chain; `frozen` misses steps that decide where a head looks.
- So neither stored method meets every bar. `frozen` misses the one on circuits, and by far: of the steps that only decide where to look
  it finds a third to a half. `secant` misses the one against leave-one-out by columns, by about two percent of the AOPC; by mean embedding
  no difference is shown, and none between `secant` and `frozen` by either perturbation. **The default is `secant`**: a step that is not
  seen cannot be traced. It costs about a third more time (see Overhead); for evidence in right answers and for the size of single VALUE
  edges `frozen` is the better one.
- `secant_h25` meets all of the bars. It was among the compared rules from the beginning, but it is singled out on these report items, and
  its lead over `secant` is small and not shown by its interval: a new set must confirm it. The stored method `secant` uses halves.
- Marked evidence, right answers of `prompts`: `frozen.total` has the highest precision@1 and MRR; `alti`, `ifr`, `saliency` and
  leave-one-out by mean embedding win precision@3.
- Chains of thought: SUPPORTS finds the proof's edges better than a random order and worse than the order "nearest sentence first", which
  wins here: this model's steps draw on the whole prompt. The chains are given ones, not its own.
- Single edges: the plain gradient's `sensitivity` ranks random edges and tells signs better than stored weights do; among the 16 largest no
  difference is shown. As a ranking of tokens it is below every conserving rule by columns, and misses steps.
"""

CHOOSING = """## Choosing the ranking

One number for each token: `drive` is the mean of its shares of `direct`, `total` and `removal` (a first-order estimate, by the method's own
gradient, of what hiding the token from all later positions takes away; see [Method](method.md)). It was chosen on tuning items among
about thirty combinations of such columns for five rules, and then measured on the report sets. The TUNING_CASES tuning items of `prompts`
and `commonsense`:
"""

TABLES = """# All tables of the evaluation

Made by `make eval`; [How right is it?](evaluation.md) says what was measured, how, and what follows.
"""

TRIED = """## Rules and columns that were tried

The rules of "Choosing the rule" run in the same machinery. A rule is better only where its paired interval says so.

On the 34 prompts that the tuning set then held, about a hundred columns were compared: eight rules (`frozen`, `secant`, `ratio`, `attnlrp`,
and `linear` with 1/4, 1/2, 3/4 and all of the difference given to the scores), and for each of them `direct`; both channels of an edge
added up first (`edge`); positive parts alone; heads of a layer added up first; root of the sum of squares; `direct` with three tenths of
`total`; `direct` with half or all of the signed score (`mixed`). Means lay between 9.6 and 10.7 logits (knockout of columns), leave-one-out
at 10.66: no column was significantly above it by that perturbation; for `secant` positive parts changed nothing and sums over heads lost.
The best of three kinds were then run on TRIED_PROMPTS report prompts, and on chase and circuits. By
columns none is above leave-one-out or `frozen.direct`; `frozen.mixed` and `linear_h25.edge` are above `secant.direct`, `secant.edge` is
not.
"""
