"""Load the tokenizer that a model folder describes, and no other.

1. Let transformers choose the class. Some classes rebuild the vocabulary by their architecture's custom instead of reading it.
2. Where the folder has a tokenizer.json, cut a probe text by it and by what was loaded; if the two differ, take tokenizer.json as it is.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import tokenizers
import transformers

from tracestore.errors import BadInputError, UnsupportedModelError

_LOG = logging.getLogger("tracestore.extract")
_PROBE: Final = "The  capital of France\tis Paris;\n\nit's 1234 + 5 = \u00fcber caf\u00e9 \U0001f600 don't x_y </tag> \u4f60\u597d. "


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer in a model folder. Raises BadInputError, or UnsupportedModelError when a package for it is missing."""
    described = _described(folder)
    try:
        found = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except ImportError as error:
        raise UnsupportedModelError(f"the tokenizer in {folder} needs a package that is not installed: {first_line(error)}") from None
    except Exception as error:  # noqa: BLE001 (the tokenizers library raises plain Exception)
        if described is None or isinstance(error, OSError):
            raise _refusal(folder, error) from None
        return _as_described(folder, described)
    if described is None or _cut(found) == described:
        return found
    _LOG.warning("%s cuts text otherwise than the folder's tokenizer.json: tokenizer.json is used as it is", type(found).__name__)
    return _as_described(folder, described)


def first_line(error: BaseException) -> str:
    """Shorten a library's message."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def _refusal(folder: Path, error: BaseException) -> BadInputError:
    return BadInputError(f"cannot load a tokenizer from {folder}: {first_line(error)}")


def _described(folder: Path) -> list[int] | None:
    """Cut the probe by the folder's tokenizer.json; None without one."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        raw = tokenizers.Tokenizer.from_file(str(path))
        raw.no_padding()
        raw.no_truncation()
        ids: list[int] = raw.encode(_PROBE, add_special_tokens=False).ids
    except Exception as error:  # noqa: BLE001 (the tokenizers library raises plain Exception)
        raise _refusal(folder, error) from None
    return ids


def _cut(tokenizer: Any) -> list[int]:
    ids: list[int] = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    return ids


def _as_described(folder: Path, described: list[int]) -> Any:
    """Load tokenizer.json without any class's own ideas."""
    try:
        found = transformers.PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # noqa: BLE001 (the tokenizers library raises plain Exception)
        raise _refusal(folder, error) from None
    if _cut(found) != described:
        raise BadInputError(f"the tokenizer in {folder} does not cut text as its tokenizer.json says: save it again with transformers 5")
    return found
