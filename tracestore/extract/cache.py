"""The user's cache folder: converted demo weights and remembered fingerprints. Everything in it can be deleted at any time."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir(*parts: str) -> Path:
    """Give a folder of the cache (`TRACESTORE_CACHE_DIR` overrides its place), made if missing, private to the user."""
    root = os.environ.get("TRACESTORE_CACHE_DIR")
    folder = (Path(root) if root else platformdirs.user_cache_path("tracestore", appauthor=False)).joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
