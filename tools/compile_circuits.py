"""Compile the programs of the circuit suite to transformer weights: run by hand in an environment of its own, its output is shipped.

    python3 -m venv /tmp/tracr && /tmp/tracr/bin/pip install tracr-pypi==1.0.0
    /tmp/tracr/bin/python tools/compile_circuits.py tracestore/evaluate/data/circuits

Every program is causal: it is read at the last position, and all that it reads lies before. One .npz each: the arrays of the compiled
model (`module#w` [in, out], `module#b`), and what its residual dimensions, tokens and outputs mean.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tracr.compiler import compiling
from tracr.rasp import rasp

LENGTH = 8


def hop3() -> tuple[rasp.SOp, list[str], int]:
    """s[s[s[i]]]: three look-ups, one a layer."""
    values = rasp.tokens
    for _ in range(3):
        values = rasp.Aggregate(rasp.Select(rasp.indices, values, rasp.Comparison.EQ), rasp.tokens)
    return values, [str(v) for v in range(LENGTH)], LENGTH


def induction() -> tuple[rasp.SOp, list[str], int]:
    """The token that follows the earlier copy of the last token: a previous-token head, then a look-up by it."""
    before = rasp.Aggregate(rasp.Select(rasp.indices, rasp.indices, lambda k, q: k == q - 1), rasp.tokens).named("before")
    found = rasp.Aggregate(rasp.Select(before, rasp.tokens, rasp.Comparison.EQ), rasp.tokens)
    return found, [chr(ord("a") + v) for v in range(LENGTH)], LENGTH


def equal() -> tuple[rasp.SOp, list[str], int]:
    """Are the first and the second token the same? Two heads fetch them, an MLP compares."""
    first = rasp.Aggregate(rasp.Select(rasp.indices, rasp.indices, lambda k, q: k == 0), rasp.tokens).named("first")
    second = rasp.Aggregate(rasp.Select(rasp.indices, rasp.indices, lambda k, q: k == 1), rasp.tokens).named("second")
    return rasp.SequenceMap(lambda a, b: "same" if a == b else "other", first, second), [chr(ord("a") + v) for v in range(5)], 6


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for program in (hop3, induction, equal):
        sop, vocabulary, length = program()
        tokens = [int(v) for v in vocabulary] if program is hop3 else vocabulary
        compiled = compiling.compile_rasp_to_model(
            sop.named("answer"), vocab=set(tokens), max_seq_len=length, causal=True, compiler_bos="BOS", compiler_pad="PAD"
        )
        arrays = {
            f"{module.removeprefix('transformer/')}#{name}": np.asarray(value, np.float32)
            for module, named in compiled.params.items()
            for name, value in named.items()
        }
        config = compiled.model_config
        heads = {"num_heads": config.num_heads, "num_layers": config.num_layers, "key_size": config.key_size, "length": length}
        encoding = {str(token): number for token, number in compiled.input_encoder.encoding_map.items()}
        rng = np.random.default_rng(0)
        samples, answers = [], []
        for _ in range(4):
            tokens_here = [str(t) for t in rng.choice([str(t) for t in tokens], length)]
            if program is hop3:
                tokens_here = [str(int(v)) for v in rng.integers(0, LENGTH, length)]
            if program is induction:
                tokens_here[-1] = tokens_here[2]
            given = ["BOS", *([int(t) for t in tokens_here] if program is hop3 else tokens_here)]
            samples.append(" ".join(tokens_here))
            answers.append(str(compiled.apply(given).decoded[-1]))
        np.savez_compressed(
            folder / f"{program.__name__}.npz",
            **arrays,
            **{name: np.array(value) for name, value in heads.items()},
            res_labels=np.array(compiled.residual_labels),
            token_names=np.array(list(encoding)),
            token_ids=np.array(list(encoding.values())),
            samples=np.array(samples),
            answers=np.array(answers),
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
