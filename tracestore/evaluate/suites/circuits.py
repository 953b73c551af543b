"""Compiled circuits: transformers made from programs, so that the tokens which decide an answer are known, step by step.

The weights (`data/circuits/*.npz`, made with tracr-pypi 1.0.0, Apache-2.0, by `tools/compile_circuits.py`) have no norms. They become a
GPT-2 whose LayerNorms do nothing: a residual r is held as (r, -r, C, -C, 0...) with C = 4096, which has mean 0 and a variance that C
alone decides, so that the norm divides by C sqrt(2/d) and its gain multiplies by it again.

    hop3       s[s[s[i]]]                              steps: the three tokens read, one after the other
    induction  what followed the earlier copy          steps: that copy, and the token after it
    equal      are the first two tokens the same       steps: both tokens, in no order
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from tracestore.ids import content_hash

NAMES: Final = ("hop3", "induction", "equal")
LARGE: Final = 4096.0
_HEAD_WIDTH: Final = 16


@dataclass(frozen=True, slots=True)
class CircuitItem:
    """Tokens without BOS, the right answer, and for every step the true positions (BOS is position 0) that decide it."""

    tokens: tuple[str, ...]
    answer: str
    steps: tuple[frozenset[int], ...]


@dataclass(frozen=True)
class Circuit:
    """A compiled program: `circuit.model()` is a GPT-2, `circuit.items(n)` its questions, each asked at the last position."""

    name: str

    @cached_property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What was compiled: weights `module#w` [in, out], labels and samples."""
        path = files("tracestore.evaluate").joinpath("data", "circuits", f"{self.name}.npz")
        with path.open("rb") as file, np.load(file) as found:
            return {key: found[key] for key in found.files}

    @property
    def length(self) -> int:
        """Tokens of a question, BOS not counted."""
        return int(self.arrays["length"])

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Every token's text by id: those of the program, then answers that are no tokens of it."""
        named = sorted(zip(self.arrays["token_ids"].tolist(), self.arrays["token_names"].tolist(), strict=True))
        tokens = [name for _, name in named]
        return (*tokens, *(name for name in self._answers if name not in tokens))

    @cached_property
    def _answers(self) -> dict[str, int]:
        """Answer -> residual dimension that holds it."""
        labels = self.arrays["res_labels"].tolist()
        return {label.split(":")[1]: index for index, label in enumerate(labels) if label.startswith("answer")}

    def model(self) -> Any:
        """Build the GPT-2. Its logits are the program's one-hot answer; tokens that are no answer have logit 0.

        In float64: beside C, what a prompt that is no question leaves of the logits is lost in float32.
        """
        from transformers import GPT2Config, GPT2LMHeadModel

        found, width = self.arrays, self.arrays["token_embed#embeddings"].shape[1]
        heads, key_size = int(found["num_heads"]), int(found["key_size"])
        unit = heads * 2
        total = -(-max(2 * width + 2, heads * _HEAD_WIDTH) // unit) * unit
        mlp = max(found[f"layer_{layer}/mlp/linear_1#b"].shape[0] for layer in range(int(found["num_layers"])))
        config = GPT2Config(
            vocab_size=len(self.vocabulary),
            n_positions=16,
            n_embd=total,
            n_layer=int(found["num_layers"]),
            n_head=heads,
            n_inner=mlp,
            activation_function="relu",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
        )
        model: Any = GPT2LMHeadModel(config).eval().double()
        with torch.no_grad():
            _fill(model, found, width, total, heads, key_size, self._answers, self.vocabulary)
        return model

    def items(self, count: int, *, seed: int = 0) -> Iterator[CircuitItem]:
        """Draw questions whose deciding tokens are distinct and unambiguous."""
        rng = np.random.default_rng([seed, NAMES.index(self.name)])
        made = 0
        while made < count:
            item = _QUESTIONS[self.name](rng, self.length)
            if item is not None:
                made += 1
                yield item

    def token_ids(self, item: CircuitItem) -> list[int]:
        """Give the ids of a question, BOS first."""
        return [self.vocabulary.index(token) for token in ("BOS", *item.tokens)]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what was compiled."""
        return content_hash([self.name, sorted((key, value.tolist()) for key, value in self.arrays.items())])


def _fill(
    model: Any,
    found: dict[str, npt.NDArray[Any]],
    width: int,
    total: int,
    heads: int,
    key_size: int,
    answers: dict[str, int],
    vocabulary: tuple[str, ...],
) -> None:
    for parameter in model.parameters():
        parameter.zero_()
    body, gain = model.transformer, LARGE * (2 / total) ** 0.5
    tokens = torch.from_numpy(found["token_embed#embeddings"])
    positions = torch.from_numpy(found["pos_embed#embeddings"])
    body.wte.weight[: len(tokens)] = _mirrored(tokens, width, total)
    body.wte.weight[:, 2 * width], body.wte.weight[:, 2 * width + 1] = LARGE, -LARGE
    body.wpe.weight[: len(positions)] = _mirrored(positions, width, total)
    for norm in [body.ln_f, *(norm for block in body.h for norm in (block.ln_1, block.ln_2))]:
        norm.weight.fill_(gain)
    for layer, block in enumerate(body.h):

        def weights(part: str, layer: int = layer) -> tuple[torch.Tensor, torch.Tensor]:
            name = f"layer_{layer}/{part}"
            return torch.from_numpy(found[f"{name}#w"]), torch.from_numpy(found[f"{name}#b"])

        head_width = total // heads
        for number, part in enumerate(("query", "key", "value")):
            w, b = weights(f"attn/{part}")
            scale = (head_width / key_size) ** 0.5 if part == "query" else 1.0
            for head in range(heads):
                ours, theirs = number * total + head * head_width, head * key_size
                block.attn.c_attn.weight[:width, ours : ours + key_size] = w[:, theirs : theirs + key_size] * scale
                block.attn.c_attn.bias[ours : ours + key_size] = b[theirs : theirs + key_size] * scale
        w, b = weights("attn/linear")
        for head in range(heads):
            rows = _mirrored(w[head * key_size : (head + 1) * key_size], width, total)
            block.attn.c_proj.weight[head * head_width : head * head_width + key_size] = rows
        block.attn.c_proj.bias.copy_(_mirrored(b[None], width, total)[0])
        w, b = weights("mlp/linear_1")
        block.mlp.c_fc.weight[:width, : w.shape[1]], block.mlp.c_fc.bias[: len(b)] = w, b
        w, b = weights("mlp/linear_2")
        block.mlp.c_proj.weight[: w.shape[0]] = _mirrored(w, width, total)
        block.mlp.c_proj.bias.copy_(_mirrored(b[None], width, total)[0])
    for answer, dimension in answers.items():
        model.lm_head.weight[vocabulary.index(answer), dimension] = 1.0


def _mirrored(rows: torch.Tensor, width: int, total: int) -> torch.Tensor:
    """Write rows [n, width] as (r, -r, 0, 0, ...) [n, total]."""
    out = rows.new_zeros(len(rows), total)
    out[:, :width], out[:, width : 2 * width] = rows, -rows
    return out


def _hop3(rng: np.random.Generator, length: int) -> CircuitItem | None:
    s = rng.integers(0, length, length).tolist()
    places = [length - 1]
    for _ in range(3):
        places.append(s[places[-1]])
    if len(set(places)) < 4:
        return None
    return CircuitItem(tuple(map(str, s)), str(s[places[3]]), tuple(frozenset({place + 1}) for place in places[1:]))


def _induction(rng: np.random.Generator, length: int) -> CircuitItem | None:
    letters = [chr(ord("a") + v) for v in rng.integers(0, 8, length)]
    earlier = [place for place, letter in enumerate(letters[:-1]) if letter == letters[-1]]
    if len(earlier) != 1 or earlier[0] >= length - 2:
        return None
    at = earlier[0] + 1
    return CircuitItem(tuple(letters), letters[at], (frozenset({at}), frozenset({at + 1})))


def _equal(rng: np.random.Generator, length: int) -> CircuitItem | None:
    letters = [chr(ord("a") + v) for v in rng.integers(0, 5, length)]
    if rng.random() < 0.5:
        letters[1] = letters[0]
    answer = "same" if letters[0] == letters[1] else "other"
    return CircuitItem(tuple(letters), answer, (frozenset({1}), frozenset({2})))


_QUESTIONS: Final[dict[str, Callable[[np.random.Generator, int], CircuitItem | None]]] = {
    "hop3": _hop3,
    "induction": _induction,
    "equal": _equal,
}
