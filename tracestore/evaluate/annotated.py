"""Items whose evidence a person marked, and the files that hold them.

The package's own files (`data/*.jsonl`) mark evidence inside the text, `The capital of [[France]] is`, so that a person can read and mend
them; a user's file is the ordinary items format with `evidence`, `expected`, `dataset` (the task), `split` and `rationale`. `steps` is a
given chain of sentences, `proof` which sentence supports which: `p1>s2` (sentence 1 of the prompt supports step 2), `s1>s2`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

from tracestore.errors import BadInputError
from tracestore.model import Item, SpanRequest

Split = Literal["tuning", "report"]
_MARK: Final = re.compile(r"\[\[(.+?)\]\]", re.DOTALL)
_PROOF: Final = re.compile(r"([ps])(\d+)>s(\d+)")


@dataclass(frozen=True, slots=True)
class Annotated:
    """An item with what a person says about it. `proof` holds pairs of nodes: ("p1", "s2")."""

    item: Item
    task: str
    split: Split
    steps: tuple[str, ...] = ()
    proof: tuple[tuple[str, str], ...] = ()

    @property
    def id(self) -> str:
        """The item's id."""
        return str(self.item.id)


def packaged(name: str) -> list[Annotated]:
    """Read a file of the package: `prompts`, `held_out`, `long`, `reasoning` or `commonsense`."""
    text = files("tracestore.evaluate").joinpath("data", f"{name}.jsonl").read_text(encoding="utf-8")
    return [_marked(json.loads(line)) for line in text.splitlines() if line.strip()]


def _marked(row: Mapping[str, Any]) -> Annotated:
    text, evidence = unmark(row["prompt"])
    steps = tuple(row.get("steps", ()))
    item = Item(
        prompt=text,
        evidence=evidence,
        id=row["id"],
        expected=row["expected"],
        rationale=row.get("rationale"),
        dataset=row["task"],
        split=row["split"],
    )
    return Annotated(item, row["task"], row["split"], steps, parse_proof(row.get("proof", ()), len(steps)))


def unmark(text: str) -> tuple[str, tuple[SpanRequest, ...]]:
    """Take the marks out of a text; give it with the marked stretches, in characters of the bare text."""
    bare, spans, last = "", [], 0
    for number, match in enumerate(_MARK.finditer(text), start=1):
        bare += text[last : match.start()]
        spans.append(SpanRequest("evidence", len(bare), len(bare) + len(match[1]), f"evidence {number}"))
        bare += match[1]
        last = match.end()
    return bare + text[last:], tuple(spans)


def parse_proof(edges: Any, n_steps: int) -> tuple[tuple[str, str], ...]:
    """Read proof edges; raises BadInputError for one that names no step."""
    found = []
    for edge in edges:
        match = _PROOF.fullmatch(edge)
        if match is None or not 1 <= int(match[3]) <= n_steps or (match[1] == "s" and not 1 <= int(match[2]) < int(match[3])):
            raise BadInputError(f"the proof edge {edge!r} does not lead to one of the {n_steps} steps: write p1>s2 or s1>s2")
        found.append((match[1] + match[2], "s" + match[3]))
    return tuple(found)


def read_user_file(path: Path) -> Iterator[Annotated]:
    """Read a user's items. Every line needs `evidence`; a line without `split` belongs to the report set.

    Raises BadInputError, with its line, for a line that is no item, has no evidence, or repeats a prompt of the other set.
    """
    from tracestore.extract.items import ItemFailure, read_items

    splits: dict[str, Split] = {}
    for entry in read_items(str(path)):
        if isinstance(entry, ItemFailure):
            raise BadInputError(f"{path.name}, line {entry.line}: {entry.reason}")
        if not entry.evidence:
            raise BadInputError(f'{path.name}, line {entry.line}: `evidence` is needed to judge a trace: [{{"start": 12, "end": 18}}]')
        split: Split = "tuning" if entry.split == "tuning" else "report"
        if splits.setdefault(repr((entry.prompt, entry.messages)), split) != split:
            raise BadInputError(f"{path.name}, line {entry.line}: this prompt is in the tuning and in the report set: choose one")
        yield Annotated(entry, entry.dataset or path.stem, split)
