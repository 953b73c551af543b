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
  suites of prompts: LANGUAGE_COUNTS. Tasks never tuned on: all but facts, arithmetic, indirect objects, two hops,
  and two of ten commonsense categories. Wordings of `held_out` and `long` were mended until the model could answer most of them; no
  attribution was looked at. Frames of sentences repeat within a task, so items are not quite independent.
- `forwards`: processor time of a method over that of a plain forward pass of the same prompt (median over cases); columns of one
  computation are each charged all of it. The machine had other work and the multiplications' AVX-512 kernels were used; Overhead was
  measured apart.

Methods with a dot are traces of this project or variants of its rule; the others are baselines, each described in
`tracestore/evaluate/baselines`. Columns of a trace: `drive`, the default ranking (below); `direct`, the size of attention edges into the
explained position; `total`, into all positions; `removal`, what hiding a token is estimated to take away; `score`, signed, adds up.
"""

LIMITS = """## Limits

- One small model carries the language suites. [How to run them on a larger one](evaluation-larger-models.md).
- In `commonsense` the evidence is always the sentence that begins the text, and the last sentence asks: the order "first token first" is
  always right there, and every ranking that sees what the last sentence contributes is below a random order. MRR says little on this set.
- In `reasoning` the model answers hardly anything right, and every method ranks the premises below a random order: what moves its answer is
  the wording of the question. It shows what rankings say of a model that does not reason, not how well they find premises.
- Marked evidence is what a person finds relevant, not what the model used: a low agreement can be the model's doing.
- Removing a token makes a text that the model never saw. AOPC rewards whatever such texts are sensitive to.
- The proximity baselines (`alti`, `ifr`) measure L1 distances in the residual stream; in the compiled circuits that stream holds large
  constants (they make LayerNorm harmless), which is unfair to them there.
- Prompts are short (4 to about 130 tokens) but for those of `long`, of which LONG_COUNT were measured.
- Wordings were mended until the model answered; how often it is right here says nothing about the model.
"""

PICTURE = """![AOPC of the methods, report prompts](evaluation/prompts-comprehensiveness_column.png)

Traced thoughts beside human reasoning (Fig. 3): [evidence, rationale and proof beside the trace](evaluation/beside-human-reasoning.html),
and one step graph beside its proof:

![Step graph beside a person's proof](evaluation/step-graph.png)
"""

READING = """### What follows

- **The default ranking `secant.drive` meets every bar on both sets** (tables under "The bars"): chains of the pointer chase and of the
  circuits, the six baselines, and leave-one-out, at 2 to 3 forward passes (3.1 at ten tokens, where a pass gives the last logits alone: see
  Overhead). On the fresh set it is above leave-one-out's order by both perturbations (columns: FRESH_LOO); so are the other candidates,
  `secant.direct` among them.
- **On the first report set** no difference from leave-one-out is shown: PROMPTS_LOO by columns, PROMPTS_MEAN by mean embedding, while
  `secant.direct` is below it there by columns (PROMPTS_DIRECT). The sets differ: many items of `prompts` end in a bare space or ask for a
  made-up word; `held_out` asks for words that the model can name.
- **Why `drive`**: it is one ranking for direct evidence and for chains. `direct` does not see the first step of the induction circuit. By
  columns `drive` leads `direct` on tuning items and on `prompts` (PROMPTS_DRIVE); on the fresh set no lead is shown (DRIVE_COLUMN), and by
  mean embedding it is below `direct` there (DRIVE_MEAN).
- **Half or a quarter** for the scores: on the fresh set `secant_h25` differs from `secant` by QUARTER_COLUMN (columns, `direct`): no
  difference is shown, and the rule stays with halves.
- **Where `frozen` wins**: marked evidence (`frozen.total` has the best precision@1 on short prompts), AOPC of `drive` (`secant` less
  `frozen` on both sets together: FROZEN_COLUMN by columns, FROZEN_MEAN by mean embedding), the size of single VALUE edges, cost. It misses
  most steps that only decide where a head looks (circuits): a step that is not seen cannot be traced, so the default is `secant`.
- **Where a baseline wins**: `ablation_regression` (32 forward passes) is above the default by both perturbations (`secant.drive` less it on
  both sets together: ABLATION_COLUMN by columns, ABLATION_MEAN by mean embedding). Bold cells of Table 2
  that are not ours say where others find more marked evidence (on `commonsense` and `reasoning` no ranking says much: see Limits).
- **Six families of models** with known drivers: `secant.drive` has the true entry first exactly as often as leave-one-out has.
- **A second language model**, on which nothing was chosen: the baselines of the bar lie below `secant.drive` there too, and leave-one-out
  does not lie above it (`secant.drive` less it: SECOND_LOO by columns). `frozen.drive` does (SECOND_FROZEN by columns), and
  `secant.direct` by mean embedding (SECOND_DIRECT).
- **Long prompts** (128 to 512 tokens): `secant.drive` finds the marked evidence as often as in short ones, and is above leave-one-out where
  that was run (LONG_LOO); raw attention finds it seldom, and yet removals in its order cost as many logits (`secant.drive` less it:
  LONG_RAW).
- **Steps of a chain of thought**: SUPPORTS ranks by `direct` without attention sinks, as was chosen on tuning items. On the report chains
  it is above the order "nearest sentence first" (Step graph), to which the signed score loses. The chains are given ones, not its own.
- **Single edges**: the plain gradient's `sensitivity` ranks random edges and tells signs better than stored weights do. Among the 16
  largest its rho is higher for VALUE edges (EDGES_LARGEST over `secant`); for KEY edges no difference is shown (EDGES_KEY). As a ranking of
  tokens it misses steps.
"""

CHOOSING = """## Choosing the ranking

One number for each token: `drive` is the mean of its shares of `direct`, `total` and `removal` (a first-order estimate, by the method's own
gradient, of what hiding the token from all later positions takes away; see [Method](method.md)). It was chosen on 74 tuning items among
about thirty columns and sums of shares for each of five rules (`frozen`, `secant` with a half and a quarter, `linear` with a quarter, the
plain gradient): by knockout of columns single columns lay 0.1 to 1.9 logits below leave-one-out, sums that hold `removal` and `total` at it
(-0.2 to +0.1). Left out for simplicity: `removal` into the explained position alone, summed over the heads of a layer, which did as well.
What `make eval` measures again of it, on TUNING_CASES tuning items of `prompts` and `commonsense`:
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
The best of three kinds were then run on report prompts: by columns none is above leave-one-out or `frozen.direct`; `frozen.mixed` and
`linear_h25.edge` are above `secant.direct`, `secant.edge` is not. Here on TRIED_PROMPTS prompts, and on chase and circuits:
"""
