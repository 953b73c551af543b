"""The sweep in small: 25 fixed classes, and proof that the judge rejects wrong numbers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tracestore.errors import UnsupportedModelError
from tracestore.extract import attention, attribute, families, norms
from tracestore.extract.sweep import outcome as sweep_outcome
from tracestore.extract.sweep.__main__ import main
from tracestore.extract.sweep.build import LENGTH, Built, build, class_names
from tracestore.extract.sweep.judge import NAMES, TIGHT, Verdict, judge, worst
from tracestore.extract.sweep.outcome import Outcome, sweep_one
from tracestore.extract.sweep.reference import make_reference
from tracestore.extract.sweep.report import report
from tracestore.extract.writers import Writers

EXACT = {
    "gpt2": "gpt2",
    "llama": "llama",
    "gemma2": "gemma2",
    "olmo2": "olmo2",
    "phi": "phi",
    "gpt_neox": "gpt_neox",
    "cohere": "generic",  # parallel block, scaled logits
    "granite": "generic",  # scaled residual stream, scaled logits
    "mixtral": "generic",  # experts
    "opt": "generic",
    "nemotron": "generic",
    "biogpt": "generic",
}
WITHOUT_PARTS = {
    "phi": ("exact", "refused: PhiForCausalLM has no compositions and paths by the method secant: its queries or keys in layer 0"),
    "cohere": ("exact", "refused: CohereForCausalLM has no compositions and paths by the method secant: its queries or keys in layer 0"),
    "biogpt": ("compositions alone: BioGptForCausalLM has no paths: the MLP is no module of its own in layer 0",) * 2,
    "opt": ("compositions alone: OPTForCausalLM has no paths: the MLP is no module of its own in layer 0",) * 2,
}
"""Of the exact ones: what is said of compositions and paths by frozen and secant; of all others `exact`."""
REFUSED = {
    "mamba": "does not attend through",
    "rwkv": "does not attend through",
    "xlnet": "does not attend through",
    "xlstm": "does not attend through",
    "recurrent_gemma": "does not attend through",
    "qwen3_next": "does not attend through",
    "bert": "post-LN",
    "roberta": "post-LN",
    "bart": "post-LN",
    "diffllama": "does not attend through",
    "deepseek_v4": "",
    "hrm_text": "decoder layers",
}
NOT_BUILT = {"musicgen": "transformers' own code"}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def llama() -> Built:
    return build("llama")


@pytest.mark.parametrize("model_type", sorted(EXACT))
def test_is_exact(model_type: str) -> None:
    found = sweep_one(model_type)
    assert (found.result, found.reason) == ("exact", "")
    assert found.family == EXACT[model_type]
    assert found.error is not None
    assert found.error <= 1e-5
    assert found.secant == "exact"
    parts = (found.parts_frozen, found.parts_secant)
    assert all(said.startswith(wanted) for said, wanted in zip(parts, WITHOUT_PARTS.get(model_type, ("exact", "exact")), strict=True)), (
        parts
    )


def test_values_made_of_a_latent_vector_are_named_where_compositions_are_refused() -> None:
    found = sweep_one("deepseek_v2")
    assert (found.result, found.secant) == ("exact", "exact")
    reason = "refused: DeepseekV2ForCausalLM has no compositions and paths: values are not made of the normed residual stream in layer 0"
    assert (found.parts_frozen, found.parts_secant) == (reason, reason)


def test_compositions_that_do_not_add_up_make_a_class_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writers, "biases", lambda self, rows: None)
    found = sweep_outcome._outcome("gpt2", 0)
    assert found.result == "wrong"
    assert found.secant == "exact"
    assert found.reason.startswith("compositions and paths by frozen: I13 inf (allowed 1e-10); compositions and paths by secant: I13 inf")


def test_an_identity_that_was_not_checked_is_not_called_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_outcome, "check_identities", lambda *args, **kwargs: [])
    found = sweep_outcome._outcome("gpt2", 0)
    assert found.result == "wrong"
    assert (found.parts_frozen, found.parts_secant) == ("I13 was not checked",) * 2


@pytest.mark.parametrize("model_type", sorted(REFUSED))
def test_is_refused_with_its_reason(model_type: str) -> None:
    found = sweep_one(model_type)
    assert found.result == "refused", found.reason
    assert REFUSED[model_type] in found.reason
    assert found.error is None


@pytest.mark.parametrize("model_type", sorted(NOT_BUILT))
def test_is_not_counted_when_it_cannot_be_built(model_type: str) -> None:
    found = sweep_one(model_type)
    assert found.result == "not built"
    assert NOT_BUILT[model_type] in found.reason


def test_every_name_of_the_mapping_has_a_class() -> None:
    names = class_names()
    assert len(names) > 150
    assert names["gpt2"] == "GPT2LMHeadModel"


def test_tiny_models_have_random_biases_and_gains() -> None:
    model = build("gpt2").model
    vectors = [p for p in model.parameters() if p.dim() == 1]
    assert len(vectors) > 20
    assert all(float(p.std()) > 0.1 for p in vectors)


def bad(verdicts: list[Verdict]) -> set[str]:
    return {v.name for v in verdicts if not v.ok}


def judged_without_admission(built: Built, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Judge a model that the engine was made to admit unseen: which checks fail?"""
    monkeypatch.setattr("tracestore.extract.admission.admit_model", lambda attributor, method: None)
    monkeypatch.setattr(attribute, "_check", lambda *_: None)
    return bad(judge(built.model, built.input_ids))


def test_the_judge_accepts_honest_numbers_within_rounding(llama: Built) -> None:
    verdicts = {v.name: v for v in judge(llama.model, llama.input_ids)}
    assert tuple(verdicts) == NAMES
    assert max(v.error for name, v in verdicts.items() if name != "logits") < TIGHT / 1e3


def test_a_wrong_norm_is_refused_and_rejected(llama: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frozen norm loses its gain."""
    honest = norms.recognise
    monkeypatch.setattr(norms, "recognise", lambda *args: dataclasses.replace(honest(*args), weight=None))  # type: ignore[type-var]
    found = sweep_outcome._outcome("llama", 0)
    assert found.result == "refused"
    assert "I0" in found.reason
    assert {"logits", "scores", "heads"} <= judged_without_admission(llama, monkeypatch)


def test_an_activation_that_is_not_frozen_is_refused_and_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of GPT-2 says gated where the MLP is plain: the gradient stops at the activation."""
    table = tuple(dataclasses.replace(f, mlp="gated") if f.name == "gpt2" else f for f in families.FAMILIES)
    monkeypatch.setattr(families, "FAMILIES", table)
    found = sweep_outcome._outcome("gpt2", 0)
    assert found.result == "refused"
    assert "I8" in found.reason or "I9" in found.reason
    rejected = judged_without_admission(build("gpt2"), monkeypatch)
    assert {"scores", "states", "nodes"} <= rejected
    assert "logits" not in rejected  # the forward pass is right: only the decomposition is wrong


def test_an_ignored_window_is_refused_and_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attention function sees every earlier token where the model has a window of 4."""
    honest = attention.frozen_attention

    def no_window(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any) -> Any:
        return honest(module, query, key, value, None, **{**kwargs, "is_causal": True})

    monkeypatch.setattr(attention, "frozen_attention", no_window)
    found = sweep_outcome._outcome("mistral", 0)
    assert found.result == "refused"
    assert "I0" in found.reason
    assert {"logits", "scores", "attention"} <= judged_without_admission(build("mistral"), monkeypatch)


def test_weights_moved_between_heads_are_rejected_though_everything_adds_up(llama: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Swap two heads in what is reported: closure and conservation still hold, so only the reference can tell."""
    honest = attribute.ForwardPass.attribute

    def swapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = honest(self, *args, **kwargs)
        order = [1, 0, *range(2, found.flows.head_relevance.shape[1])]
        for array in (found.flows.head_relevance, found.flows.head_bias, found.flows.value_in, found.graph.head_dropped_in):
            array[:] = array[:, order]
        heads = torch.tensor(order).numpy()
        edges = dataclasses.replace(found.graph.edges, head=heads[found.graph.edges.head])
        return dataclasses.replace(found, graph=dataclasses.replace(found.graph, edges=edges))

    monkeypatch.setattr(attribute.ForwardPass, "attribute", swapped)
    rejected = bad(judge(llama.model, llama.input_ids))
    assert rejected == {"heads", "edges", "attention"}


def test_a_model_that_sees_the_future_is_rejected(llama: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mask, attention reads later tokens: refused; and the causality check sees it in the untouched model."""
    model = build("llama").model
    handles = [
        layer.register_forward_pre_hook(lambda _, args: (args[0] + args[0].mean(1, keepdim=True), *args[1:]))
        for layer in model.model.layers
    ]
    try:
        with pytest.raises(UnsupportedModelError):
            attribute.Attributor(model)
        from tracestore.extract.sweep.judge import _causality_error

        assert _causality_error(model, llama.input_ids) > 1e-3
        assert _causality_error(llama.model, llama.input_ids) < 1e-12
    finally:
        for handle in handles:
            handle.remove()


def test_the_reference_is_affine_and_untouched_by_the_engine(llama: Built) -> None:
    reference = make_reference(llama.model, llama.input_ids, wide=True)
    one = torch.ones(LENGTH, dtype=torch.float64)
    at = [reference.replay({0: factor * one}) for factor in (0.0, 1.0, 3.0)]
    line = at[0] + 3 * (at[1] - at[0])
    assert float((line - at[2]).abs().max()) < 1e-11
    assert float((at[1] - reference.logits).abs().max()) < 1e-12
    assert [len(reference.patterns(layer)) for layer in range(4)] == [1, 1, 1, 1]
    real = llama.model(input_ids=llama.input_ids, use_cache=False).logits[0]
    assert float((reference.logits - real).abs().max()) < 1e-5


def test_the_worst_verdict_is_the_one_that_is_no_number() -> None:
    verdicts = [Verdict("scores", 1e-3, 1e-9), Verdict("edges", float("nan"), 1e-9), Verdict("nodes", 0.0, 1e-9)]
    assert worst(verdicts).name == "edges"
    assert not worst(verdicts).ok


def test_report_counts_and_lists() -> None:
    outcomes = [
        Outcome(
            "a",
            "AForCausalLM",
            "exact",
            family="generic",
            dtype="float64",
            check="logits",
            error=2e-7,
            secant="exact",
            parts_frozen="compositions alone: no such module",
            parts_secant="refused: a norm | of queries",
        ),
        Outcome("b", "BForCausalLM", "refused", "because | of this"),
        Outcome("c", "CForCausalLM", "wrong", "scores 1.0e+00 (allowed 1e-09)"),
    ]
    page = report(outcomes)
    assert "| exact | 1 | 1 |" in page
    assert "| wrong | 1 | 1 |" in page
    assert "| `a` | AForCausalLM | generic | float64 | logits | 2e-07 | exact | compositions alone | refused |" in page
    assert "| `a` | compositions, paths by frozen | no such module |" in page
    assert "| `a` | compositions, paths by secant | a norm \\| of queries |" in page
    assert "| `b` | BForCausalLM | because \\| of this |" in page
    assert page.count("- J") == 9


def test_command_sweeps_one_class_in_a_worker(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "families.md"
    assert main(["--only", "mamba", "--json", "--output", str(page)]) == 0
    captured = capsys.readouterr()
    (row,) = json.loads(captured.out)
    assert (row["model_type"], row["class_name"], row["result"]) == ("mamba", "MambaForCausalLM", "refused")
    assert "[1/1" in captured.err
    assert not page.exists()
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "no_such_class"])


def test_the_page_in_the_docs_names_every_class() -> None:
    page = Path(__file__).parents[2] / "docs" / "families.md"
    text = page.read_text(encoding="utf-8")
    missing = [name for name in class_names() if f"| `{name}` |" not in text]
    assert missing == []
    assert "| wrong | 0 | 0 |" in text
    exact = text[text.index("## Exact\n") : text.index("## Exact, with something refused")].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in exact if line.startswith("| `")]
    assert len(rows) > 90
    assert {row[6] for row in rows} == {"exact"}
    assert {cell for row in rows for cell in row[7:]} == {"exact", "refused", "compositions alone"}
    assert {len(row) for row in rows} == {9}
