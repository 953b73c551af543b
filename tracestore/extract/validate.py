"""`validate`: the identities of the decomposition as a report on one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tracestore.extract.identities import MEANING, IdentityResult, check_identities
from tracestore.extract.loading import LoadedModel
from tracestore.model import DEFAULT_METHOD, Method

TEXT = "The capital of France is Paris, and the capital of Italy is"
MAX_TOKENS = 12


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """What `validate` found. A refused model has no report: UnsupportedModelError says why."""

    model_id: str
    family: str
    identities: tuple[IdentityResult, ...]
    method: Method = DEFAULT_METHOD
    supported: bool = True

    @property
    def ok(self) -> bool:
        """Do all identities hold?"""
        return all(identity.ok for identity in self.identities)

    def to_dict(self) -> dict[str, Any]:
        """Give the report as plain values, as `tracestore validate --json` prints it."""
        rows = [{"id": i.id, "error": i.error, "tolerance": i.tolerance, "ok": i.ok, "meaning": MEANING[i.id]} for i in self.identities]
        return {"model_id": self.model_id, "family": self.family, "method": self.method, "supported": self.supported, "identities": rows}


def validate(loaded: LoadedModel, method: Method = DEFAULT_METHOD) -> ValidationReport:
    """Check I0 to I13 of a method on a short text. Raises UnsupportedModelError with the reason when the model is refused."""
    from tracestore.extract.trace import attributor_for

    attributor = attributor_for(loaded)
    ids = loaded.tokenizer(TEXT, add_special_tokens=False)["input_ids"][:MAX_TOKENS]
    found = check_identities(attributor, torch.tensor(ids), method)
    return ValidationReport(loaded.model_id, attributor.family, tuple(found), method)
