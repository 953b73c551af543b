"""Train a small model on the pointer chase, on the spot, and keep it with its checkpoints as ordinary model folders.

1. Fresh sequences in every update; cross-entropy on the steps alone; AdamW with a linear warm-up, then a constant rate.
2. At chosen updates the model is saved as `step-N` (whence its `checkpoint_step`), its accuracy on held-out sequences beside it.
3. All of it in the user's cache, under the hash of everything that determines it; one process trains, others wait for it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from filelock import FileLock
from torch import Tensor

from tracestore.errors import BadInputError, ResourceError
from tracestore.evaluate.suites.pointer_chase import PointerChase
from tracestore.evaluate.suites.pointer_chase_recipe import Recipe, configuration
from tracestore.extract.cache import cache_dir
from tracestore.extract.loading import quiet
from tracestore.ids import content_hash

_LAYOUT: Final = 1  # raise when training or what is saved changes, so that old folders are left alone
_HELD_OUT: Final = 1_000
_HELD_OUT_SEED: Final = 1 << 20  # far from the seeds that people give


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved model: its folder, the updates it has seen, and the share of held-out steps it gets right."""

    folder: Path
    step: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class TrainedChase:
    """A trained model: its checkpoints in order of training, and the seconds that training took."""

    task: PointerChase
    checkpoints: tuple[Checkpoint, ...]
    seconds: float

    @property
    def final(self) -> Checkpoint:
        """The finished model."""
        return self.checkpoints[-1]


def pointer_chase_model(
    task: PointerChase | None = None, recipe: Recipe | None = None, *, on_update: Callable[[int, float], None] | None = None
) -> TrainedChase:
    """Give the trained model from the cache, training it on first use (a minute of one CPU core for the standard recipe).

    `on_update` is called with (update from 1, loss in nats) while training. Raises BadInputError for a recipe that cannot be followed,
    ResourceError when the cache cannot be written.
    """
    task, recipe = task or PointerChase(), recipe or Recipe()
    if recipe.updates < 1 or any(not 0 <= save <= recipe.updates for save in recipe.saves):
        raise BadInputError("a recipe needs one update or more, and saves between 0 and their number")
    key = content_hash({"task": asdict(task), "recipe": _named(recipe), "torch": torch.__version__, "layout": _LAYOUT})
    try:
        folder = cache_dir("pointer-chase") / key[:16]
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _train_into(folder, task, recipe, on_update or _ignore)
    except OSError as error:
        raise ResourceError(
            f"the pointer-chase model cannot be kept in the cache ({error.strerror}): free some space, or set TRACESTORE_CACHE_DIR"
        ) from None
    return _read(folder, task)


def _named(recipe: Recipe) -> dict[str, Any]:
    """Give what names a recipe. The first family goes without its name: models that were kept before there were others stay found."""
    fields = asdict(recipe)
    if recipe.family == Recipe().family:
        del fields["family"]
    return fields


def _ignore(update: int, loss: float) -> None:
    pass


def _read(folder: Path, task: PointerChase) -> TrainedChase:
    note = json.loads((folder / "training.json").read_text(encoding="ascii"))
    saved = tuple(Checkpoint(folder / name, step, accuracy) for name, step, accuracy in note["checkpoints"])
    return TrainedChase(task, saved, note["seconds"])


def _train_into(folder: Path, task: PointerChase, recipe: Recipe, on_update: Callable[[int, float], None]) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="tmp", dir=folder.parent))
    try:
        start, saved = time.perf_counter(), []
        with torch.random.fork_rng(devices=[]):
            model = _new_model(task, recipe)
            optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
            data = torch.Generator().manual_seed(recipe.seed)
            for update in range(recipe.updates + 1):
                if update in (*recipe.saves, recipe.updates):
                    saved.append([f"step-{update}", update, _save(model, task, temporary / f"step-{update}")])
                if update < recipe.updates:
                    on_update(update + 1, _update(model, optimiser, task, recipe, data, update))
        note = {"checkpoints": saved, "seconds": time.perf_counter() - start}
        (temporary / "training.json").write_text(json.dumps(note), encoding="ascii")
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _new_model(task: PointerChase, recipe: Recipe) -> Any:
    from transformers import AutoModelForCausalLM

    config = configuration(task, recipe)
    torch.manual_seed(recipe.seed)
    return AutoModelForCausalLM.from_config(config)


def _update(model: Any, optimiser: torch.optim.Optimizer, task: PointerChase, recipe: Recipe, data: torch.Generator, done: int) -> float:
    """Make one update; give its loss, nats."""
    ids = task.sample(recipe.batch, data)
    for group in optimiser.param_groups:
        group["lr"] = recipe.rate * min(1.0, (done + 1) / recipe.warm_up)
    logits = _step_logits(model.train(), task, ids)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, task.n_prompt :].flatten())
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimiser.step()
    return float(loss.detach())


def _step_logits(model: Any, task: PointerChase, ids: Tensor) -> Tensor:
    """Give the logits that predict the steps [B, steps, V]."""
    logits: Tensor = model(input_ids=ids[:, :-1], use_cache=False, logits_to_keep=task.steps).logits
    return logits


def _save(model: Any, task: PointerChase, folder: Path) -> float:
    """Save model and tokenizer; give the share of held-out steps that it gets right."""
    with quiet():
        model.save_pretrained(folder)
        task.tokenizer().save_pretrained(folder)
    held_out = task.sample(_HELD_OUT, torch.Generator().manual_seed(_HELD_OUT_SEED))
    with torch.no_grad():
        said = _step_logits(model.eval(), task, held_out).argmax(-1)
    return float((said == held_out[:, task.n_prompt :]).double().mean())
