"""`ingest` against the extraction alone, in one process, on the demo's model: `python -m bench.ingest [--prompts 32] [--repeats 2]`.

Paired: within each repeat the same prompts are traced into a fresh archive (extraction alone, writing included), then ingested into a
fresh archive and store (extraction and loading overlapped, until the last edge is visible), with the mechanism level, pruned as by default.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

from tracestore.archive import Archive
from tracestore.extract.loading import LoadedModel
from tracestore.ingest import ingest_items, trace_to_archive
from tracestore.ingest.demo import load_demo_model
from tracestore.model import Item
from tracestore.store import open_engine

TEXT = (
    "Note {number}. Alice lives in France and her brother works as an engineer in a small town near the coast. Every summer they travel "
    "by train to visit their parents, who keep a vineyard in the hills. The capital of the country where Alice lives is"
)


def once(model: LoadedModel, items: list[Item], folder: Path) -> tuple[float, float, int]:
    """Give the seconds of extraction alone and of ingest, and the edges stored."""
    alone = trace_to_archive(items, model, Archive(folder / "alone"))
    with open_engine(str(folder / "graph.lbug")) as store:
        both = ingest_items(items, model, Archive(folder / "both"), store, level="mechanism", expected_items=len(items))
    assert alone.traced == both.traced.traced == len(both.loaded.loaded) == len(items)
    return alone.seconds, both.seconds, both.loaded.edges


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    model = load_demo_model()
    items = [Item(prompt=TEXT.format(number=n), id=f"note-{n}") for n in range(chosen.prompts)]
    tokens = len(model.tokenizer(items[0].prompt)["input_ids"])
    with tempfile.TemporaryDirectory() as name:
        once(model, items[:2], Path(name) / "warm")
        runs = [once(model, items, Path(name) / str(n)) for n in range(chosen.repeats)]
    ratio = statistics.median(both / alone for alone, both, _ in runs)
    print(f"{chosen.prompts} prompts of about {tokens} tokens, {runs[0][2]:,} edges, {chosen.threads} threads\n")
    print("| repeat | extraction alone, s | ingest, s | ratio |")
    print("|---|---|---|---|")
    for number, (alone, both, _) in enumerate(runs, start=1):
        print(f"| {number} | {alone:.1f} | {both:.1f} | {both / alone:.2f} |")
    print(f"\nMedian ratio {ratio:.2f} (aim: at most 1.25).")


if __name__ == "__main__":
    main()
