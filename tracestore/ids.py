"""Identities: hashes that name a computation before it is done.

`trace_id` covers what determines the numbers (model weights, tokens, targets, generation, method, pruning) and nothing else: not the
library's version, not the schema's, not who asked. Under `--no-text` every hash of text is keyed, so that it cannot be guessed back.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Final

ID_CHARS: Final = 32
"""Characters of an id: 128 bits in hexadecimal, far beyond accidental collision."""


def content_hash(value: object, *, key: bytes | None = None) -> str:
    """Hash any JSON-able value; with `key` as an HMAC. Equal values give equal hashes whatever the order of their keys."""
    data = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()
    digest = hmac.new(key, data, hashlib.sha256) if key is not None else hashlib.sha256(data)
    return digest.hexdigest()[:ID_CHARS]


def prompt_hash(text: str, *, key: bytes | None = None) -> str:
    """Hash a text, to join the traces of one prompt over models and methods."""
    return content_hash(["prompt", text], key=key)


def trace_id(
    *,
    model_fingerprint: str,
    token_ids: Sequence[int],
    n_prompt_tokens: int,
    targets: object,
    generation: Mapping[str, object],
    method: str,
    method_version: int,
    pruning: Mapping[str, object],
    key: bytes | None = None,
) -> str:
    """Name a computation. `token_ids` are the prompt's and the given completion's (not what is still to be generated)."""
    return content_hash(
        {
            "model": model_fingerprint,
            "tokens": list(token_ids),
            "n_prompt": n_prompt_tokens,
            "targets": targets,
            "generation": dict(generation),
            "method": [method, method_version],
            "pruning": dict(pruning),
        },
        key=key,
    )


def output_id(trace: str, pos: int, token_id: int, foil_token_id: int | None = None, *, first_pos: int | None = None) -> str:
    """Name an explained prediction: `trace_id:pos:token_id[-foil_token_id]`.

    A span that is explained as one sum has `first_pos..pos` in place of `pos`, and its last token in `token_id`.
    """
    foil = "" if foil_token_id is None else f"-{foil_token_id}"
    place = f"{pos}" if first_pos is None else f"{first_pos}..{pos}"
    return f"{trace}:{place}:{token_id}{foil}"


def keyed_token(token_id: int, key: bytes) -> int:
    """Replace a vocabulary id by a keyed hash that fits a positive 62-bit integer: ids are the text."""
    digest = hmac.new(key, str(token_id).encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big") >> 2
