"""`validate`: exit 0 when every identity holds, 4 when the model is refused, 7 when an identity fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.command_line import ok, run
from tests.support.tiny_text_model import byte_level_tokenizer, save_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


def test_a_sound_model(model: Path) -> None:
    found = ok("validate", "--model", model, "--json").json
    assert list(found) == ["model_id", "family", "method", "supported", "identities"]
    assert (found["model_id"], found["supported"]) == (str(model), True)
    assert "llama" in found["family"].lower()
    assert [list(identity) for identity in found["identities"]] == [["id", "error", "tolerance", "ok"]] * len(found["identities"])
    assert {"I0", "I1", "I8", "I9"} <= {identity["id"] for identity in found["identities"]}
    assert all(identity["ok"] and identity["error"] <= identity["tolerance"] for identity in found["identities"])


def test_a_refused_model(tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    MambaForCausalLM(MambaConfig(vocab_size=420, hidden_size=16, num_hidden_layers=2, state_size=4, time_step_rank=4)).save_pretrained(
        tmp_path
    )
    byte_level_tokenizer().save_pretrained(tmp_path)
    done = run("validate", "--model", tmp_path, "--json")
    assert done.code == 4
    assert done.json["supported"] is False
    assert done.json["identities"] == []
    assert "Mamba" in done.json["reason"]
    assert done.json["reason"] in done.err


def test_an_identity_that_fails(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tracestore import api
    from tracestore.extract.validate import validate

    report = validate(api.load_model(model))
    first, *rest = report.identities
    broken = replace(report, identities=(replace(first, error=1.0), *rest))
    monkeypatch.setattr(api, "validate", lambda loaded, method: broken)  # no sound model fails one
    done = run("validate", "--model", model, "--json")
    assert done.code == 7
    assert done.json["identities"][0]["ok"] is False
    assert first.id in done.err
