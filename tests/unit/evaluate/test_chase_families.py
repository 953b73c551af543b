"""Every family of the pointer chase is the class that it says, with the parts that it stands for, and closes; missing baselines say why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from tracestore.errors import BadInputError
from tracestore.evaluate import methods
from tracestore.evaluate.case import Case
from tracestore.evaluate.report import suite_report
from tracestore.evaluate.runner import REFUSED, RunSettings, evaluate_case
from tracestore.evaluate.suites import known
from tracestore.evaluate.suites.pointer_chase import PointerChase
from tracestore.evaluate.suites.pointer_chase_model import TrainedChase, pointer_chase_model
from tracestore.evaluate.suites.pointer_chase_recipe import RECIPES, Recipe, configuration
from tracestore.extract.attribute import Attributor
from tracestore.extract.attribution import TargetSpec
from tracestore.extract.loading import load_model
from tracestore.model import Method

TASK: Final = PointerChase(keys=4, steps=2)
METHODS: Final[tuple[Method, ...]] = ("frozen", "secant")
PARTS: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "llama": ("LlamaForCausalLM", lambda c: c.num_key_value_heads == c.num_attention_heads),
    "gpt2": ("GPT2LMHeadModel", lambda c: c.n_positions == 64 and c.tie_word_embeddings and not c.resid_pdrop),
    "gpt_neox": ("GPTNeoXForCausalLM", lambda c: c.use_parallel_residual and c.rope_parameters["partial_rotary_factor"] == 0.25),
    "gemma2": ("Gemma2ForCausalLM", lambda c: c.attn_logit_softcapping == 50.0 and c.final_logit_softcapping == 30.0),
    "qwen3": ("Qwen3ForCausalLM", lambda c: c.num_attention_heads == 2 * c.num_key_value_heads),
    "bloom": ("BloomForCausalLM", lambda c: c.tie_word_embeddings),
}


def tiny(family: str) -> TrainedChase:
    """Make three updates of a tiny model."""
    recipe = Recipe(layers=2, width=16, mlp=24, heads=2, batch=4, updates=3, saves=(), family=family)
    return pointer_chase_model(TASK, recipe)


@pytest.mark.parametrize("family", RECIPES)
def test_a_family_is_its_class_with_its_parts_and_its_traces_close(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACESTORE_CACHE_DIR", str(tmp_path))
    model = load_model(tiny(family).final.folder).model
    name, has_parts = PARTS[family]
    assert type(model).__name__ == name
    assert has_parts(model.config)
    attributor = Attributor(model)
    (sequence,) = TASK.sample(1, torch.Generator().manual_seed(2))
    for method in METHODS:
        found = attributor.run(sequence[:-1], method=method).attribute(TargetSpec(TASK.n_prompt, int(sequence[-1])), last=True)
        assert found.closure < 1e-4


def test_families_have_other_sizes_of_their_own_and_recipes_that_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {family: recipe.family for family, recipe in RECIPES.items()} == {family: family for family in PARTS}
    assert RECIPES["llama"] == Recipe()
    monkeypatch.setenv("TRACESTORE_CACHE_DIR", str(tmp_path))
    assert tiny("llama").final.folder.parent != tiny("gpt2").final.folder.parent
    with pytest.raises(BadInputError, match=r"no recipe for family 'rwkv': choose llama, gpt2"):
        configuration(TASK, Recipe(family="rwkv"))


def test_cases_are_told_by_family_and_ask_all_of_them_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACESTORE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(known, "pointer_chase_model", lambda task, recipe: tiny(recipe.family))
    pending = list(known.chase_family_cases(2, task=TASK))
    assert list(tmp_path.iterdir()) == [], "a model was trained before it was asked"
    cases = [one.make() for one in pending]
    assert [case.id for case in cases] == [one.id for one in pending]
    assert [case.task for case in cases] == [family for family in RECIPES for _ in range(2 * TASK.steps)]
    assert len({case.id for case in cases}) == len(cases)
    asked = {family: [(case.token_ids, case.token_id, case.evidence) for case in cases if case.task == family] for family in RECIPES}
    assert all(one == asked["llama"] for one in asked.values())
    assert len({id(case.attributor) for case in cases}) == len(RECIPES)


def test_a_method_that_a_model_has_no_place_for_has_a_reason_and_no_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, GraniteConfig

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = GraniteConfig(vocab_size=31, bos_token_id=0, eos_token_id=None, pad_token_id=None, residual_multiplier=0.3, **sizes)
    case = Case(
        "a", "granite", Attributor(AutoModelForCausalLM.from_config(config).eval()), (1, 2, 3, 4), 5, frozenset({2}), (frozenset({2}),)
    )
    chosen = methods.find_methods(["ifr", "direct_logit", "raw_attention", "secant.direct"])
    settings = RunSettings("chase_families", "", tuple(method.name for method in chosen), False)
    rows = {row["method"]: row for row in evaluate_case(case, chosen, settings)}
    for name in ("ifr", "direct_logit"):
        assert "GraniteAttention" in rows[name][REFUSED]
        assert not {"top1", "share", "forwards"} & set(rows[name])
    for name in ("raw_attention", "secant.direct"):
        assert REFUSED not in rows[name]
        assert rows[name]["share"] > 0
    report = suite_report("chase_families", "several families", list(rows.values()), "secant.direct")
    assert "| ifr | - | - |" in report
    assert report.count("No number for ifr, direct_logit: what the heads of GraniteAttention write") == 1
