"""The pointer chase: the sequences follow their table, the drivers are the right entries, the trained model solves it and can be traced."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.support.small_chase import SMALL_TASK
from tracestore.errors import BadInputError, ResourceError
from tracestore.evaluate.suites.pointer_chase import PointerChase
from tracestore.evaluate.suites.pointer_chase_model import TrainedChase, pointer_chase_model
from tracestore.evaluate.suites.pointer_chase_recipe import Recipe
from tracestore.extract.loading import load_model
from tracestore.extract.tokenise import append_given, tokenise
from tracestore.extract.trace import trace


def test_ids_texts_and_drivers_of_a_sequence_made_by_hand() -> None:
    task = PointerChase(keys=3, steps=2)
    words = ["<s>", "2=0", "0=1", "1=2", "x0", "x1", "x2"]
    sequence = torch.tensor([task.vocabulary.index(word) for word in words])
    assert sequence.tolist() == [0, 1 + 3 * 2 + 0, 1 + 0 + 1, 1 + 3 * 1 + 2, 10, 11, 12]
    assert task.text(sequence) == "2=0 0=1 1=2 x0 x1 x2"
    assert task.drivers(sequence[None]).tolist() == [[2, 3]]  # x1 = s[0] stands at position 2, x2 = s[1] at position 3
    assert (task.length, task.n_prompt) == (7, 5)


def test_every_sampled_step_follows_from_its_driver() -> None:
    sequences = SMALL_TASK.sample(50, torch.Generator().manual_seed(3))
    texts = [[SMALL_TASK.vocabulary[token] for token in row] for row in sequences.tolist()]
    drivers = SMALL_TASK.drivers(sequences).tolist()
    for words, entries in zip(texts, drivers, strict=True):
        table = dict(word.split("=") for word in words[1 : 1 + SMALL_TASK.keys])
        assert sorted(table) == sorted(table.values()) == [str(key) for key in range(SMALL_TASK.keys)]
        steps = [word.removeprefix("x") for word in words[SMALL_TASK.n_prompt - 1 :]]
        assert [table[key] for key in steps[:-1]] == steps[1:]
        assert [words[entry] for entry in entries] == [f"{key}={value}" for key, value in pairwise(steps)]
    assert SMALL_TASK.sample(50, torch.Generator().manual_seed(3)).equal(sequences)


def test_items_mark_the_drivers_and_cut_into_the_very_tokens() -> None:
    task = PointerChase(keys=4, steps=3)
    sequences = task.sample(3, torch.Generator().manual_seed(7))
    for item, sequence, drivers in zip(task.items(3, seed=7), sequences.tolist(), task.drivers(sequences).tolist(), strict=True):
        assert item.prompt is not None
        assert item.completion is not None
        marked = [item.prompt[span.start : span.end] for span in item.evidence]
        assert marked == [task.vocabulary[sequence[driver]] for driver in drivers]
        prompt = tokenise(task.tokenizer(), item.prompt)
        assert append_given(task.tokenizer(), prompt, item.completion).token_ids == tuple(sequence)


def test_the_trained_model_looks_up_and_loads_as_any_folder(chase: TrainedChase) -> None:
    assert [checkpoint.step for checkpoint in chase.checkpoints] == [0, 30, 60, 150]
    assert chase.checkpoints[0].accuracy < 0.3
    assert chase.final.accuracy > 0.99
    loaded = load_model(chase.final.folder)
    assert loaded.checkpoint_step == 150
    (item,) = SMALL_TASK.items(1, seed=5)
    found = trace(loaded, item)
    (drivers,) = SMALL_TASK.drivers(SMALL_TASK.sample(1, torch.Generator().manual_seed(5))).tolist()
    ranked = [output.influences()["pos"].to_pylist() for output in found.outputs]
    assert [next(pos for pos in best_first if pos is not None and pos <= SMALL_TASK.keys) for best_first in ranked] == drivers
    assert found.closure < 1e-4


def test_the_cache_is_used_and_what_cannot_be_done_is_refused(chase: TrainedChase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(update: int, loss: float) -> None:
        raise AssertionError("trained again")

    from tests.support.small_chase import SMALL_RECIPE

    assert pointer_chase_model(SMALL_TASK, SMALL_RECIPE, on_update=fail) == chase
    with pytest.raises(BadInputError, match="saves"):
        pointer_chase_model(SMALL_TASK, Recipe(updates=10, saves=(11,)))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRACESTORE_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="TRACESTORE_CACHE_DIR"):
        pointer_chase_model(SMALL_TASK, SMALL_RECIPE)


def test_interrupted_training_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACESTORE_CACHE_DIR", str(tmp_path))
    recipe = Recipe(layers=1, width=8, mlp=8, heads=2, batch=2, updates=3, saves=(0,))

    def stop(update: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pointer_chase_model(PointerChase(3, 1), recipe, on_update=stop)
    assert [path.suffix for path in (tmp_path / "pointer-chase").iterdir()] == [".lock"]
    made = pointer_chase_model(PointerChase(3, 1), recipe)
    assert [(c.step, c.folder.is_dir()) for c in made.checkpoints] == [(0, True), (3, True)]
