"""Estimate the memory that loading and tracing need, before either starts, and compare it with what is free.

Weights: the shapes in the safetensors headers (or the sizes of older files) times the bytes of the number format asked for.
Activations of one trace: `T` positions; per layer the residual stream, queries, keys, values, MLP gates and their gradients; the logits
of the explained positions; one tile of attention. A bound meant to be right within a factor of two, on the safe side.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tracestore.errors import BadInputError, ResourceError
from tracestore.extract.spool import LIMIT_BYTES

DTYPE_BYTES: Final[Mapping[str, int]] = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_STORED_BYTES: Final[Mapping[str, int]] = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
_FLOATS: Final = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_HEADER_LIMIT: Final = 100 << 20
_SLACK: Final = 256 << 20  # buffers of the libraries themselves
_TILE_ROWS: Final = 256


def available_bytes() -> int | None:
    """Give the bytes of memory that can still be used, container limits included; None where the system does not say."""
    found = [value for value in (_meminfo(), _cgroup_left()) if value is not None]
    if found:
        return min(found)
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup_left(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Give what the container's limit leaves (version 2, then version 1); cached file pages count as free, since they give way."""
    versions = (
        ("memory.max", "memory.current", "memory.stat", ("inactive_file", "active_file")),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            ("total_inactive_file", "total_active_file"),
        ),
    )
    for limit, used, statistics, names in versions:
        try:
            top, now, lines = ((root / name).read_text(encoding="ascii").strip() for name in (limit, used, statistics))
        except OSError:
            continue
        if top.isdigit() and now.isdigit():
            cached = sum(int(line.split()[1]) for line in lines.splitlines() if line.split()[0] in names)
            return max(0, int(top) - int(now) + cached)
    return None


def safetensors_header(path: Path) -> dict[str, Any]:
    """Read the table of tensors at the head of a safetensors file. Raises BadInputError for a cut or foreign file."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= _HEADER_LIMIT:
                raise BadInputError(f"{path} is no safetensors file: its header claims {length} bytes")
            header: dict[str, Any] = json.loads(file.read(length))
    except (struct.error, ValueError):
        raise BadInputError(f"{path} is no complete safetensors file: copy or download it again") from None
    header.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if path.stat().st_size < 8 + length + end:
        raise BadInputError(f"{path} is cut short ({path.stat().st_size} of {8 + length + end} bytes): copy or download it again")
    return header


def weights_bytes(weight_files: list[Path], dtype: str) -> int:
    """Estimate the bytes of the loaded weights in `dtype` (`auto`: as stored)."""
    target = DTYPE_BYTES.get(dtype)
    total = 0
    for path in weight_files:
        if path.suffix != ".safetensors":  # pickled: the stored format is unknown before it is read; suppose two bytes a number
            total += path.stat().st_size * ((target or 2) // 2 or 1)
            continue
        for entry in safetensors_header(path).values():
            count = 1
            for side in entry["shape"]:
                count *= side
            stored = _STORED_BYTES.get(entry["dtype"], 1)
            total += count * (target if target and entry["dtype"] in _FLOATS else stored)
    return total


def trace_bytes(config: Any, n_tokens: int, n_outputs: int, dtype: str = "float32") -> int:
    """Estimate the bytes of activations, gradients and tables of one trace of `n_tokens` positions and `n_outputs` outputs."""
    width = _number(config, ("hidden_size", "n_embd", "d_model"), 1024)
    layers = _number(config, ("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 24)
    heads = _number(config, ("num_attention_heads", "n_head", "n_heads"), 16)
    inner = _number(config, ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"), 4 * width)
    vocabulary = _number(config, ("vocab_size",), 50_000)
    size = max(4, DTYPE_BYTES.get(dtype, 4))
    per_layer = n_tokens * (12 * width + 4 * inner) * size
    tile = 6 * heads * min(n_tokens, _TILE_ROWS) * n_tokens * size
    tables = min(n_outputs * 4_000_000, 2 * LIMIT_BYTES) + n_outputs * n_tokens * 16
    return layers * per_layer + tile + 3 * min(n_outputs, 64) * vocabulary * size + tables + _SLACK


def _number(config: Any, names: tuple[str, ...], otherwise: int) -> int:
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return otherwise


def require(needed: int, what: str, advice: str, *, available: int | None = None) -> None:
    """Raise ResourceError when `needed` bytes are more than what is free (or than `available`)."""
    free = available_bytes() if available is None else available
    if free is not None and needed > free:
        raise ResourceError(f"{what} needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free: {advice}")
