"""Find the folder of a model: a local one, or one of the hub's cache, fetched if need be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tracestore.errors import BadInputError
from tracestore.extract.fingerprint import weight_files

_FETCHED: Final = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
_SUBFOLDERS: Final = "*/*"  # copies in other formats
_HUB_ID: Final = re.compile(r"(?P<repository>\w[\w.\-]*(?:/\w[\w.\-]*)?)(?:@(?P<revision>\w[\w.\-/]*))?")


def model_folder(model_id: str | Path) -> Path:
    """Resolve a folder, `owner/name` or `owner/name@revision`. Raises BadInputError when there is no such thing or it cannot be fetched."""
    given = Path(model_id).expanduser()
    if given.is_dir():
        return given
    if given.exists():
        raise BadInputError(f"{model_id} is a file: give the model's folder (GGUF files are not read; convert them to safetensors first)")
    named = None if isinstance(model_id, Path) else _HUB_ID.fullmatch(model_id)
    if named is None:
        raise BadInputError(f"there is no model folder {model_id}")
    return _fetch(named["repository"], named["revision"])


def _fetch(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    folder = None
    try:
        for patterns in (_FETCHED, (*_FETCHED, "*.bin")):  # pickled weights only where there are no others
            folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns), ignore_patterns=_SUBFOLDERS))
            if weight_files(folder):
                break
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise BadInputError(
            f"{repository} is no local folder and could not be fetched from the hub ({type(error).__name__}): "
            "check the name, the revision, your access and the network"
        ) from None
    assert folder is not None
    return folder
