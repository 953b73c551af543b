"""The pointer chase: a task in which the one true driver of every step is known.

A sequence is the start token, a shuffled table of entries `k=v` (a random permutation s of the keys, each key once), then x0 at random,
x1 = s[x0], x2 = s[x1] and so on. Entries are written "3=7", steps "x5", with spaces between them:

    <s> 3=7 0=4 7=1 ... x3 x7 x1

The true driver of step m is the entry whose key is x(m-1). Vocabulary: 0 starts, 1 + keys k + v is the entry k=v, 1 + keys^2 + v the
step xv, and last `<unk>`, which a tokenizer must have and which no sequence contains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor

from tracestore.model import Item, SpanRequest

START: Final = "<s>"
UNKNOWN: Final = "<unk>"


@dataclass(frozen=True)
class PointerChase:
    """The task with `keys` table entries and `steps` look-ups."""

    keys: int = 12
    steps: int = 5

    @property
    def length(self) -> int:
        """Tokens in a sequence: start, table, x0, steps."""
        return 2 + self.keys + self.steps

    @property
    def n_prompt(self) -> int:
        """Tokens before the first look-up: start, table, x0."""
        return 2 + self.keys

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Every token's text, by id."""
        entries = [f"{key}={value}" for key in range(self.keys) for value in range(self.keys)]
        return (START, *entries, *(f"x{value}" for value in range(self.keys)), UNKNOWN)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw sequences: token ids [count, length]."""
        successor = torch.rand(count, self.keys, generator=generator).argsort(1)
        order = torch.rand(count, self.keys, generator=generator).argsort(1)
        table = 1 + self.keys * order + successor.gather(1, order)
        values = [torch.randint(0, self.keys, (count, 1), generator=generator)]
        for _ in range(self.steps):
            values.append(successor.gather(1, values[-1]))
        return torch.cat([torch.zeros(count, 1, dtype=torch.long), table, self._step_ids(torch.cat(values, 1))], 1)

    def _step_ids(self, values: Tensor) -> Tensor:
        return 1 + self.keys**2 + values

    def drivers(self, sequences: Tensor) -> Tensor:
        """Give the position of every step's true driver [count, steps]; step m (from 1) is predicted at position keys + m."""
        keys = (sequences[:, 1 : 1 + self.keys] - 1) // self.keys
        before = sequences[:, 1 + self.keys : -1] - 1 - self.keys**2
        return 1 + (keys[:, None, :] == before[:, :, None]).int().argmax(2)

    def text(self, sequence: Tensor, start: int = 1, stop: int | None = None) -> str:
        """Write tokens [start, stop) of a sequence [length]; the tokenizer itself puts the start token in front."""
        return " ".join(self.vocabulary[int(token)] for token in sequence[start:stop])

    def items(self, count: int, *, seed: int = 0) -> Iterator[Item]:
        """Give sequences as items: table and x0 the prompt, the steps the completion, the table's entries as `evidence` in step order."""
        sequences = self.sample(count, torch.Generator().manual_seed(seed))
        for index, (sequence, drivers) in enumerate(zip(sequences, self.drivers(sequences).tolist(), strict=True)):
            prompt = self.text(sequence, stop=self.n_prompt)
            evidence = []
            for step, driver in enumerate(drivers, start=1):
                start = len(self.text(sequence, stop=driver)) + (driver > 1)
                end = len(self.text(sequence, stop=driver + 1))
                evidence.append(SpanRequest("evidence", start, end, f"step {step}"))
            yield Item(
                prompt=prompt,
                completion=" " + self.text(sequence, self.n_prompt),
                evidence=tuple(evidence),
                id=f"chase-{seed}-{index}",
                dataset="pointer_chase",
            )

    def tokenizer(self) -> Any:
        """Make the task's tokenizer: words between spaces, the start token in front."""
        from tokenizers import Tokenizer, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        raw = Tokenizer(models.WordLevel({text: index for index, text in enumerate(self.vocabulary)}, unk_token=UNKNOWN))
        raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        raw.post_processor = processors.TemplateProcessing(single=f"{START} $A", special_tokens=[(START, 0)])
        return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=START, unk_token=UNKNOWN)
