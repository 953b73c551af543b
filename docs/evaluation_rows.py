"""The raw rows of the evaluation, kept compressed beside its page: every number can be computed again, and a run goes on from them.

`docs/evaluation/rows/PATH.gz` is the file PATH of the output folder. Rows belong to their settings (methods, model, measures): where those
have changed they are left alone, and measured again.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Final

ROWS: Final = Path(__file__).parent / "evaluation" / "rows"
PATTERNS: Final = ("*.jsonl", "*/*.jsonl", "*/*/*.jsonl", "second.txt")


def unpack(output: Path, rows: Path = ROWS) -> None:
    """Put the kept files that `output` does not have into it."""
    for packed in sorted(rows.rglob("*.gz")):
        file = output / packed.relative_to(rows).with_suffix("")
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(gzip.decompress(packed.read_bytes()))


def pack(output: Path, rows: Path = ROWS) -> None:
    """Keep the files of `output`; the same rows give the same bytes."""
    for file in sorted(found for pattern in PATTERNS for found in output.glob(pattern)):
        packed = rows / f"{file.relative_to(output)}.gz"
        packed.parent.mkdir(parents=True, exist_ok=True)
        packed.write_bytes(gzip.compress(file.read_bytes(), mtime=0))
