"""Family tables by `model_type`. An architecture that has none takes the generic path, admitted by closure alone."""

from __future__ import annotations

from typing import Final

from tracestore.extract.families import gemma, gpt, llama, phi
from tracestore.extract.families.base import Family, MlpKind

__all__ = ["FAMILIES", "Family", "MlpKind", "find_family"]

FAMILIES: Final[tuple[Family, ...]] = (*gpt.FAMILIES, *llama.FAMILIES, *gemma.FAMILIES, *phi.FAMILIES)


def find_family(model_type: str) -> Family | None:
    """Give the table of a `model_type`, or None."""
    return next((family for family in FAMILIES if model_type in family.model_types), None)
