"""Fingerprint a model: a hash over its weights and the configuration that shapes the computation.

1. Hash every weights file by content; the hash is remembered under (path, size, modification time), so a second load reads no weights.
2. Hash the configuration without what does not change the numbers (paths, library versions, defaults of generation).
3. Combine, by file name. A model that is only in memory is hashed over its state dict instead.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tracestore.errors import BadInputError
from tracestore.extract.cache import cache_dir
from tracestore.ids import content_hash

_LOG = logging.getLogger("tracestore.extract")
_CHUNK: Final = 4 << 20
_IRRELEVANT: Final = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "_attn_implementation_autoset")
_WEIGHT_PATTERNS: Final = ("*.safetensors", "pytorch_model*.bin")


def weight_files(folder: Path) -> list[Path]:
    """List the weights files that transformers would load from a model folder, by name; safetensors before pickled ones."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        if (folder / f"{name}.index.json").is_file():
            return _indexed(folder / f"{name}.index.json")
    for pattern in _WEIGHT_PATTERNS:
        found = sorted(folder.glob(pattern))
        if found:
            return found
    return []


def _indexed(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadInputError(f"{index} is no valid index of weights: copy or download it again") from None
    files = [index.parent / name for name in sorted(names)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise BadInputError(
            f"{index.parent} lacks {len(missing)} of {len(files)} weights files, first {missing[0]}: copy or download it again"
        )
    return files


def folder_fingerprint(folder: Path) -> str:
    """Fingerprint a model folder. Raises BadInputError without config.json or weights."""
    files = weight_files(folder)
    if not files:
        raise BadInputError(f"{folder} holds no weights (*.safetensors or pytorch_model*.bin)")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInputError(f"{folder} holds no config.json: is it a model folder?") from None
    except ValueError:
        raise BadInputError(f"{folder / 'config.json'} is not valid JSON") from None
    if not isinstance(config, dict):
        raise BadInputError(f"{folder / 'config.json'} holds no JSON object")
    relevant = {key: value for key, value in config.items() if key not in _IRRELEVANT}
    return content_hash({"config": _plain(relevant), "weights": [file_hash(file) for file in files]})


def _plain(value: Any) -> Any:
    """Replace floats that JSON cannot hold by their names."""
    return json.loads(json.dumps(value, default=str), parse_constant=str)


def file_hash(path: Path) -> str:
    """Hash a file's content (SHA-256), remembered by path, size and modification time where the cache can be written."""
    real = path.resolve()
    stat = real.stat()
    name = hashlib.sha256(str(real).encode()).hexdigest()
    key = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    remembered = _remembered(name, key)
    if remembered is not None:
        return remembered
    digest = hashlib.sha256()
    with real.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    _remember(name, {"key": key, "sha256": digest.hexdigest()})
    return digest.hexdigest()


def _remembered(name: str, key: list[int]) -> str | None:
    try:
        note = json.loads((cache_dir("fingerprints") / name).read_text(encoding="ascii"))
        return str(note["sha256"]) if note["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not remembered, or the note is damaged: the file is read


def _remember(name: str, note: Mapping[str, object]) -> None:
    try:
        folder = cache_dir("fingerprints")
        handle, temporary = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            json.dump(note, file)
        os.replace(temporary, folder / name)
    except OSError as error:
        _LOG.warning("the cache cannot be written (%s): weights are read whole on every load", error.strerror)


def state_fingerprint(model: Any) -> str:
    """Fingerprint a model in memory over its configuration and tensors (their bytes, in order of name)."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        data = tensor.detach().cpu().contiguous()
        digest.update(f"{name}|{data.dtype}|{tuple(data.shape)}|".encode())
        digest.update(data.reshape(-1).view(torch.uint8).numpy().tobytes() if data.numel() else b"")
    relevant = {key: value for key, value in model.config.to_dict().items() if key not in _IRRELEVANT}
    return content_hash({"config": _plain(relevant), "state": digest.hexdigest()})
