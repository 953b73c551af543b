"""What the demo works on: its prompts, its model, and the small archive of both that ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tracestore.extract.loading import Dtype, LoadedModel

_ROOT: Final = Path(__file__).resolve().parents[1]

ITEMS: Final = _ROOT / "demo" / "prompts.jsonl"
PREBUILT: Final = _ROOT / "prebuilt"
HEADLINE_ITEM: Final = "fact-france"
"""The item that the demo explains in full."""

HEADLINE_TEXT: Final = " Paris"
"""The prediction that the demo follows through all prompts."""


def load_demo_model(*, device: str = "cpu", dtype: Dtype = "float32") -> LoadedModel:
    """Load SmolLM2-135M from its package; the first time converts it into the user's cache."""
    from dataclasses import replace

    from tracestore.extract.demo_model import MODEL_ID, demo_model_folder
    from tracestore.extract.loading import load_model

    return replace(load_model(demo_model_folder(), device=device, dtype=dtype), model_id=MODEL_ID)
