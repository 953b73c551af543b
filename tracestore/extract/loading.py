"""Load a model and its tokenizer from a local folder or a hub id, trusting no code that comes with it.

1. Resolve to a folder (a hub id is fetched into the hub's own cache).
2. Estimate the memory from the weights' headers and compare it with what is free, before anything is read.
3. Fingerprint the folder; load; refuse weights that are incomplete (transformers would fill the gaps at random, with a mere warning).
4. Freeze the parameters and switch to evaluation.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
import transformers

from tracestore.errors import BadInputError, ResourceError, UnsupportedModelError
from tracestore.extract import fingerprint as fingerprints
from tracestore.extract import memory
from tracestore.extract.hub import model_folder
from tracestore.extract.load_tokenizer import first_line, load_tokenizer

Dtype = Literal["auto", "float32", "bfloat16", "float16", "float64"]
_CONTEXT_NAMES: Final = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LoadedModel:
    """A model ready to be traced. `context_length` is None where the architecture has no limit; `dtype` is that of the weights."""

    model: Any
    tokenizer: Any
    model_id: str
    fingerprint: str
    dtype: str
    device: str
    context_length: int | None
    checkpoint_step: int | None = None

    @property
    def config(self) -> Any:
        """The configuration of the text decoder."""
        return self.model.config.get_text_config(decoder=True)

    @property
    def end_ids(self) -> frozenset[int]:
        """Token ids that end a continuation, from the generation configuration, the configuration and the tokenizer."""
        found: set[int] = set()
        for holder in (getattr(self.model, "generation_config", None), self.config, self.tokenizer):
            value = getattr(holder, "eos_token_id", None)
            found.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
        return frozenset(int(token) for token in found if token is not None)


def load_model(model_id: str | Path, *, device: str = "cpu", dtype: Dtype = "float32") -> LoadedModel:
    """Load a causal language model by folder or hub id (`owner/name` or `owner/name@revision`), weights in `dtype` (`auto`: as stored).

    Raises BadInputError (unknown folder, incomplete or damaged weights), UnsupportedModelError (no causal language model of transformers)
    and ResourceError (not enough memory; the message says what to change).
    """
    if dtype not in get_args(Dtype):
        raise BadInputError(f"unknown dtype {dtype!r}: choose one of {', '.join(get_args(Dtype))}")
    target = _device(device)
    folder = model_folder(model_id)
    files = fingerprints.weight_files(folder)
    if target.type == "cpu" and files:
        advice = "load it with dtype bfloat16, choose a smaller model, or free memory"
        memory.require(memory.weights_bytes(files, dtype), f"loading {model_id}", advice)
    print_id = fingerprints.folder_fingerprint(folder)
    with quiet():
        model = _load_weights(folder, dtype, target)
        tokenizer = load_tokenizer(folder)
    step = checkpoint_step(folder, str(model_id))
    return wrap_model(model, tokenizer, model_id=str(model_id), fingerprint=print_id, checkpoint_step=step)


def wrap_model(
    model: Any, tokenizer: Any, *, model_id: str, fingerprint: str | None = None, checkpoint_step: int | None = None
) -> LoadedModel:
    """Take a transformers model that is in memory already: it is frozen and set to evaluation in place."""
    model.eval()
    model.requires_grad_(False)
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    if weight is None:
        raise BadInputError(f"{model_id} has no floating-point parameters")
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        model_id=model_id,
        fingerprint=fingerprint or fingerprints.state_fingerprint(model),
        dtype=str(weight.dtype).removeprefix("torch."),
        device=str(weight.device),
        context_length=context_length(model.config.get_text_config(decoder=True)),
        checkpoint_step=checkpoint_step,
    )


def context_length(config: Any) -> int | None:
    """Give the largest number of positions the architecture was made for, or None."""
    for name in _CONTEXT_NAMES:
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def checkpoint_step(folder: Path, name: str = "") -> int | None:
    """Read the training step from trainer_state.json, or from a folder name or a revision such as `checkpoint-500` or `step500`."""
    try:
        step = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8")).get("global_step")
    except (OSError, ValueError, AttributeError):
        step = None
    if isinstance(step, int) and not isinstance(step, bool):
        return step
    for place in (folder.name, name):
        named = re.search(r"(?:checkpoint|step)[-_]?(\d+)$", place, re.IGNORECASE)
        if named:
            return int(named.group(1))
    return None


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise BadInputError(f"device {name!r} cannot be used here: choose cpu, or install a torch build for it") from None
    return device


def _load_weights(folder: Path, dtype: str, device: torch.device) -> Any:
    wanted = "auto" if dtype == "auto" else getattr(torch, dtype)
    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=wanted, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
        missing = sorted(info.get("missing_keys", ()))
        if missing:
            raise BadInputError(f"the weights in {folder} are incomplete: {len(missing)} tensors are missing, first {missing[0]}")
        return model.to(device)
    except (torch.OutOfMemoryError, MemoryError):
        raise ResourceError(
            f"not enough memory to load {folder} on {device}: use dtype bfloat16, another device or a smaller model"
        ) from None
    except ImportError as error:
        raise UnsupportedModelError(f"{folder} needs a package that is not installed: {first_line(error)}") from None
    except (ValueError, KeyError) as error:
        raise UnsupportedModelError(f"{folder} is no causal language model that transformers knows: {first_line(error)}") from None
    except (OSError, RuntimeError) as error:
        shapes = "ignore_mismatched_sizes" in str(error)
        why = "their shapes are not those that its config.json describes" if shapes else first_line(error)
        raise BadInputError(f"cannot load the weights in {folder}: {why}") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and load reports, which are no data of ours; errors still raise."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
