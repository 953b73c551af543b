"""Tracing from a prompt to finished tables, on a tiny random model with a real tokenizer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from tests.support.tiny_text_model import byte_level_tokenizer, metaspace_tokenizer, tiny_llama, tiny_loaded
from tracestore import schema
from tracestore.errors import BadInputError, ItemError, ModelOutputError, ResourceError
from tracestore.extract import memory
from tracestore.extract.generate import continue_tokens
from tracestore.extract.loading import LoadedModel, wrap_model
from tracestore.extract.plan import plan_trace
from tracestore.extract.trace import trace
from tracestore.model import DEFAULT_METHOD, Document, GenerationOptions, Item, PruningOptions, SpanRequest, Trace, TraceOptions

PROMPT = "The capital of France is"
RICH = Item(
    prompt="It is in Paris. Where is the tower?",
    completion=" It is in Paris.",
    documents=(Document("d1", "It is in Paris."),),
    spans=(SpanRequest("step", 36, 51, "s1"),),
    evidence=(SpanRequest("evidence", 9, 14),),
    id="rich",
    dataset="facts",
    tags=("a",),
    expected="It is in Paris",
)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return tiny_loaded()


@pytest.fixture(scope="module")
def rich(loaded: LoadedModel) -> Trace:
    return trace(loaded, RICH)


def column(table: pa.Table, name: str) -> Any:
    return np.asarray(table[name].to_pylist(), dtype=np.float64)


def test_tables_are_those_of_the_schema_and_node_numbers_are_unique(rich: Trace) -> None:
    assert set(rich.tables) <= set(schema.ARCHIVE_TABLES)
    for name, table in rich.tables.items():
        assert table.schema == schema.arrow_schema(name)
        assert table.num_rows > 0
    nodes = {label: rich.table(label)["local"].to_pylist() for label in schema.NODE_BY_LABEL}
    numbers = [number for found in nodes.values() for number in found]
    assert len(set(numbers)) == len(numbers)
    assert nodes["Trace"] == [0]
    for name, (_, src, dst) in schema.EDGE_TABLES.items():
        table = rich.table(name)
        assert set(table["src"].to_pylist()) <= set(nodes[src])
        assert set(table["dst"].to_pylist()) <= set(nodes[dst])


def test_scores_and_bias_add_up_to_what_is_explained(rich: Trace) -> None:
    influences = rich.table("INFLUENCES.Token.Output")
    outputs = rich.table("Output").to_pylist()
    assert len(outputs) == rich.header["n_tokens"] - rich.header["n_prompt_tokens"]
    for output in outputs:
        mine = column(influences, "dst") == output["local"]
        total = column(influences, "score")[mine].sum() + output["bias"]
        assert total == pytest.approx(output["explained"], abs=1e-4 * max(abs(output["explained"]), output["logit_std"]))
        assert sorted(column(influences, "src")[mine] - 2) == list(range(output["pos"] + 1))
    assert 0 < rich.closure < 1e-5
    assert rich.closure == pytest.approx(max(output["closure"] for output in outputs))


def test_outputs_agree_with_the_model_itself(loaded: LoadedModel, rich: Trace) -> None:
    ids = rich.table("Token")["token_id"].to_pylist()
    with torch.no_grad():
        logits = loaded.model(torch.tensor([ids])).logits[0].double()
    for output in rich.table("Output").to_pylist():
        row = logits[output["pos"]]
        assert output["token_id"] == ids[output["pos"] + 1]
        assert output["logit"] == pytest.approx(float(row[output["token_id"]]), abs=1e-4)
        assert output["explained"] == pytest.approx(float(row[output["token_id"]] - row.mean()), abs=1e-4)
        assert output["prob"] == pytest.approx(float(row.softmax(0)[output["token_id"]]), abs=1e-5)


def test_emitted_tokens_follow_their_outputs(rich: Trace) -> None:
    outputs = {row["local"]: row for row in rich.table("Output").to_pylist()}
    tokens = {row["local"]: row for row in rich.table("Token").to_pylist()}
    edges = rich.table("EMITS.Output.Token").to_pylist()
    assert len(edges) == len(outputs)
    for edge in edges:
        assert tokens[edge["dst"]]["pos"] == outputs[edge["src"]]["pos"] + 1
        assert tokens[edge["dst"]]["token_id"] == outputs[edge["src"]]["token_id"]


def test_a_target_that_is_not_what_follows_emits_nothing(loaded: LoadedModel) -> None:
    found = trace(loaded, Item(prompt=PROMPT, completion=" Paris", targets=(-2,), target_token=" Rome"))
    assert found.table("EMITS.Output.Token").num_rows == 0
    assert found.outputs[0].row["text"] == " Rome"


def test_span_influences_are_the_sums_of_their_tokens(rich: Trace) -> None:
    spans = {row["local"]: row for row in rich.table("Span").to_pylist()}
    assert [(row["kind"], row["ref"], row["text"]) for row in spans.values()] == [
        ("document", "d1", "It is in Paris."),
        ("evidence", None, "Paris"),
        ("answer", None, " It is in Paris."),
        ("step", "s1", "It is in Paris."),
    ]
    tokens = {row["local"]: row["pos"] for row in rich.table("Token").to_pylist()}
    outputs = {row["local"]: row["pos"] for row in rich.table("Output").to_pylist()}
    by_token = rich.table("INFLUENCES.Token.Output").to_pylist()
    edges = rich.table("INFLUENCES.Span.Output").to_pylist()
    assert {(edge["src"], edge["dst"]) for edge in edges} == {
        (local, output) for local, span in spans.items() for output, pos in outputs.items() if span["first_pos"] <= pos
    }
    unsinked = dict[tuple[int, int, str], float]()
    for edge in edges:
        span = spans[edge["src"]]
        inside = [e for e in by_token if e["dst"] == edge["dst"] and span["first_pos"] <= tokens[e["src"]] <= span["last_pos"]]
        for name in ("score", "direct_value", "total_value", "direct", "total", "share"):
            assert edge[name] == pytest.approx(sum(e[name] for e in inside), abs=1e-4)
            unsinked[edge["src"], edge["dst"], name] = sum(e[name] for e in inside if tokens[e["src"]] > 0)
    for output in outputs:
        for name in ("direct", "total"):
            mine = sorted((e for e in edges if e["dst"] == output), key=lambda e: e[f"rank_{name}"])
            assert [e[f"rank_{name}"] for e in mine] == list(range(1, len(mine) + 1))
            sizes = [unsinked[e["src"], output, name] for e in mine]
            assert sizes == pytest.approx(sorted(sizes, reverse=True))


def test_tokens_say_where_they_come_from(loaded: LoadedModel, rich: Trace) -> None:
    header = rich.header
    origins = rich.table("Token")["origin"].to_pylist()
    assert origins == ["prompt"] * header["n_prompt_tokens"] + ["given"] * (header["n_tokens"] - header["n_prompt_tokens"])
    assert rich.table("Token")["sink"].to_pylist() == [True] + [False] * (header["n_tokens"] - 1)
    assert rich.text == str(RICH.prompt) + str(RICH.completion)
    both = trace(loaded, Item(prompt=PROMPT, completion=" Paris", max_new_tokens=2, targets="last"))
    assert both.table("Token")["origin"].to_pylist()[-3:] in (["given", "generated", "generated"], ["given", "given", "generated"])


def test_the_header_and_the_item(loaded: LoadedModel, rich: Trace) -> None:
    header = rich.header
    assert (header["model_id"], header["model_fingerprint"], header["dtype"]) == ("tiny", loaded.fingerprint, "float32")
    assert (header["n_layers"], header["n_heads"], header["method"], header["keep"], header["max_edges"]) == (
        2,
        4,
        DEFAULT_METHOD,
        pytest.approx(0.9),
        20_000,
    )
    assert json.loads(header["generation"]) == {"max_new_tokens": 0}
    assert set(json.loads(header["versions"])) == {"tracestore", "torch", "transformers"}
    (item,) = rich.table("Item").to_pylist()
    assert (item["item_id"], item["dataset"], item["tags"], item["expected"], item["correct"]) == (
        "rich",
        "facts",
        ["a"],
        "It is in Paris",
        True,
    )
    verdicts = [output.row["correct"] for output in rich.outputs]
    assert verdicts[0] is True
    assert verdicts[-1] is None  # what was expected was said before the full stop


def test_without_a_continuation_the_most_probable_token_is_judged(loaded: LoadedModel) -> None:
    first = trace(loaded, PROMPT).outputs[0].row["text"]
    right = trace(loaded, Item(prompt=PROMPT, expected=first.strip() or first, targets=(1,)))
    assert right.table("Item")["correct"].to_pylist() == [True if first.strip() else None]
    assert right.outputs[0].row["correct"] is None
    assert trace(loaded, Item(prompt=PROMPT, expected="\u4f60")).table("Item")["correct"].to_pylist() == [False]


def test_greedy_is_what_generate_says(loaded: LoadedModel) -> None:
    ids = loaded.tokenizer(PROMPT)["input_ids"]
    own = loaded.model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=6, do_sample=False, pad_token_id=0
    )
    expected = [token for token in own[0][len(ids) :].tolist() if token not in loaded.end_ids]
    found = trace(loaded, PROMPT, TraceOptions(generation=GenerationOptions(max_new_tokens=6)))
    assert found.table("Token")["token_id"].to_pylist()[len(ids) :] == expected
    assert [output.row["vocab_rank"] for output in found.outputs] == [1] * len(expected)
    assert [output.row["pos"] for output in found.outputs] == list(range(len(ids) - 1, len(ids) - 1 + len(expected)))


def test_a_model_without_a_cache_is_continued_from_the_start() -> None:
    tokenizer = byte_level_tokenizer()
    torch.manual_seed(0)
    config = OpenAIGPTConfig(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, initializer_range=1.0, tie_word_embeddings=False)
    old = wrap_model(OpenAIGPTLMHeadModel(config).eval(), tokenizer, model_id="old")
    ids = tokenizer(PROMPT)["input_ids"]
    own = old.model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert len(set(own[0][len(ids) :].tolist())) == 5
    assert continue_tokens(old, ids, GenerationOptions(5)) == own[0][len(ids) :].tolist()


def test_sampling_follows_its_seed_and_nothing_else(loaded: LoadedModel) -> None:
    ids = loaded.tokenizer(PROMPT)["input_ids"]

    def drawn(seed: int, *, temperature: float = 2.0, top_p: float = 1.0) -> list[int]:
        torch.manual_seed(torch.randint(1000, (1,)).item())
        return continue_tokens(loaded, ids, GenerationOptions(8, temperature, top_p, seed))

    assert drawn(1) == drawn(1) != drawn(2)
    assert drawn(1, top_p=1e-6) == drawn(2, top_p=1e-6) == continue_tokens(loaded, ids, GenerationOptions(8))


def test_the_end_token_ends_the_text_and_is_not_in_it() -> None:
    tokenizer = byte_level_tokenizer()
    loaded = tiny_loaded(tokenizer=tokenizer)
    ids = tokenizer(PROMPT)["input_ids"]
    first = continue_tokens(loaded, ids, GenerationOptions(1))[0]
    loaded.model.generation_config.eos_token_id = [first]
    assert continue_tokens(loaded, ids, GenerationOptions(5)) == []
    found = trace(loaded, PROMPT, TraceOptions(generation=GenerationOptions(max_new_tokens=5)))
    assert found.header["n_tokens"] == len(ids)
    assert [(output.row["pos"], output.row["token_id"]) for output in found.outputs] == [(len(ids) - 1, first)]


def test_ids_name_the_computation_and_nothing_else(loaded: LoadedModel) -> None:
    base = plan_trace(loaded, PROMPT).trace_id
    same = [
        plan_trace(loaded, Item(prompt=PROMPT, id="x", expected="Paris", tags=("t",))),
        plan_trace(loaded, PROMPT, TraceOptions(targets="last", gauge="centred")),
        plan_trace(loaded, PROMPT, TraceOptions(generation=GenerationOptions(0, 0.7, 0.5, 3))),
    ]
    assert {plan.trace_id for plan in same} == {base}
    different = [
        plan_trace(loaded, PROMPT + "."),
        plan_trace(loaded, PROMPT, TraceOptions(targets="all")),
        plan_trace(loaded, PROMPT, TraceOptions(foil="runner-up")),
        plan_trace(loaded, PROMPT, TraceOptions(gauge="raw")),
        plan_trace(loaded, PROMPT, TraceOptions(target_token=5)),
        plan_trace(loaded, PROMPT, TraceOptions(generation=GenerationOptions(2))),
        plan_trace(loaded, PROMPT, TraceOptions(generation=GenerationOptions(2, 0.5))),
        plan_trace(loaded, PROMPT, TraceOptions(generation=GenerationOptions(2, 0.5, seed=1))),
        plan_trace(loaded, PROMPT, TraceOptions(pruning=PruningOptions(keep=0.5))),
        plan_trace(loaded, PROMPT, TraceOptions(pruning=PruningOptions(max_edges=5))),
        plan_trace(loaded, Item(prompt="The capital of France", completion=" is", targets=(-1,))),
        plan_trace(tiny_loaded(seed=1), PROMPT),
    ]
    ids = [base, *(plan.trace_id for plan in different)]
    assert len(set(ids)) == len(ids)
    assert trace(loaded, PROMPT).trace_id == base


def test_the_same_item_gives_the_same_tables(loaded: LoadedModel, rich: Trace) -> None:
    again = trace(loaded, RICH)
    assert again.trace_id == rich.trace_id
    for name in rich.tables:
        if name != "Trace":
            assert again.table(name).equals(rich.table(name)), name


def test_gauges(loaded: LoadedModel) -> None:
    ids = loaded.tokenizer(PROMPT)["input_ids"]
    with torch.no_grad():
        row = loaded.model(torch.tensor([ids])).logits[0, -1].double()
    best, second = row.topk(2).indices.tolist()
    explained = {
        "raw": trace(loaded, PROMPT, TraceOptions(gauge="raw")).outputs[0].row,
        "centred": trace(loaded, PROMPT).outputs[0].row,
        "foil": trace(loaded, PROMPT, TraceOptions(foil="runner-up")).outputs[0].row,
    }
    assert explained["raw"]["explained"] == pytest.approx(float(row[best]), abs=1e-4)
    assert explained["centred"]["explained"] == pytest.approx(float(row[best] - row.mean()), abs=1e-4)
    assert explained["foil"]["explained"] == pytest.approx(float(row[best] - row[second]), abs=1e-4)
    assert explained["foil"]["foil_token_id"] == second
    assert explained["foil"]["output_id"].endswith(f":{len(ids) - 1}:{best}-{second}")


def test_an_emoji_in_the_prompt_is_found_by_its_characters(loaded: LoadedModel) -> None:
    found = trace(loaded, Item(prompt="a \U0001f600 b", spans=(SpanRequest("step", 2, 3),)))
    (span,) = found.table("Span").to_pylist()
    covered = [row for row in found.table("Token").to_pylist() if span["first_pos"] <= row["pos"] <= span["last_pos"]]
    assert len(covered) > 1
    assert all(row["char_from"] <= 2 < row["char_to"] for row in covered)
    assert span["text"] == "\U0001f600"


def test_a_chat_with_a_model_that_puts_marks_in_front() -> None:
    spaced = tiny_loaded(tokenizer=metaspace_tokenizer())
    found = trace(spaced, Item(prompt=PROMPT, completion=" Paris"))
    first = found.table("Token").to_pylist()[0]
    assert (first["text"], first["char_from"], first["char_to"]) == ("<s>", 0, 0)
    assert found.text == PROMPT + " Paris"
    with pytest.raises(ItemError, match="no chat template"):
        trace(spaced, Item(messages=({"role": "user", "content": "a"},)))


def test_a_chat_is_traced_with_its_roles(loaded: LoadedModel) -> None:
    found = trace(loaded, Item(messages=({"role": "user", "content": "Where?"}, {"role": "assistant", "content": "In Paris."})))
    assert [(row["kind"], row["ref"], row["text"]) for row in found.table("Span").to_pylist()] == [
        ("role", "user", "Where?"),
        ("turn", "0", "Where?"),
        ("answer", None, "In Paris."),
    ]
    assert "".join(output.row["text"] for output in found.outputs) == "In Paris."


def test_a_broken_checkpoint_is_named(loaded: LoadedModel) -> None:
    broken = tiny_loaded(seed=3)
    trace(broken, PROMPT)
    broken.model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(ModelOutputError, match=r"NaN or infinite|not finite"):
        trace(broken, PROMPT)
    with pytest.raises(ModelOutputError, match="not finite"):
        trace(broken, PROMPT, TraceOptions(generation=GenerationOptions(max_new_tokens=2)))
    fresh = tiny_loaded(seed=4)
    fresh.model.lm_head.weight.data[:] = float("inf")
    with pytest.raises(ModelOutputError):
        trace(fresh, PROMPT)


@pytest.mark.parametrize(
    "options",
    [
        TraceOptions(generation=GenerationOptions(max_new_tokens=-1)),
        TraceOptions(generation=GenerationOptions(1, temperature=-0.1)),
        TraceOptions(generation=GenerationOptions(1, temperature=float("nan"))),
        TraceOptions(generation=GenerationOptions(1, top_p=0.0)),
        TraceOptions(pruning=PruningOptions(keep=0.0)),
        TraceOptions(pruning=PruningOptions(keep=1.1)),
        TraceOptions(pruning=PruningOptions(max_edges=0)),
    ],
)
def test_options_out_of_range(loaded: LoadedModel, options: TraceOptions) -> None:
    with pytest.raises(BadInputError):
        plan_trace(loaded, PROMPT, options)


@pytest.mark.parametrize(
    "item",
    [
        Item(),
        Item(messages=()),
        Item(prompt=""),
        Item(prompt="\udcff"),
        Item(prompt="a", messages=({"role": "user", "content": "a"},)),
        Item(prompt="a", targets=()),
        Item(prompt="a", spans=(SpanRequest("step", 0, 2),)),
        Item(messages=({"role": "user", "content": "a"},), spans=(SpanRequest("step", 0, 10_000),)),
    ],
)
def test_items_made_in_python_are_checked_too(loaded: LoadedModel, item: Item) -> None:
    with pytest.raises(ItemError):
        plan_trace(loaded, item)


def test_a_tokenizer_of_another_model_is_noticed() -> None:
    other = wrap_model(tiny_llama(300), byte_level_tokenizer(), model_id="mixed")
    with pytest.raises(BadInputError, match="belongs to another model"):
        plan_trace(other, PROMPT)


def test_a_text_beyond_the_context_or_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    short = tiny_loaded(context=10)
    with pytest.raises(ItemError, match="do not fit the model's context of 10"):
        trace(short, PROMPT * 3)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 20)
    with pytest.raises(ResourceError, match="shorten the item"):
        trace(short, "a")


def test_a_model_that_is_in_memory_is_frozen(loaded: LoadedModel) -> None:
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert not loaded.model.training
    again = wrap_model(loaded.model, loaded.tokenizer, model_id="other")
    assert again.fingerprint == loaded.fingerprint
    assert again.fingerprint != tiny_loaded(seed=1).fingerprint
