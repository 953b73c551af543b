"""Trace one item: `trace(model, prompt)` and, for pipelines, `plan_trace` and then `run_trace`.

1. Plan: resolve the item and name the trace (plan.py); nothing has run yet.
2. Estimate the memory; generate the continuation, if one is asked for.
3. One forward pass, one backward pass per target (attribute.py), each turned into tables at once.
4. Add what the text says: Item, Tokens, Spans, the spans' influences, EMITS; then the Trace's own row.

Position 0 is marked as the attention sink: there trained models park the attention that they do not need.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import torch

from tracestore import ids, schema
from tracestore._version import __version__
from tracestore.errors import ResourceError
from tracestore.extract import memory
from tracestore.extract.attribute import Attributor, ForwardPass
from tracestore.extract.attribution import OutputAttribution, TargetSpec
from tracestore.extract.generate import continue_tokens
from tracestore.extract.loading import LoadedModel
from tracestore.extract.output_tables import OutputNames, output_tables
from tracestore.extract.plan import PlannedTrace, generation_record, plan_trace
from tracestore.extract.spans import token_spans
from tracestore.extract.targets import answer_correct, target_specs, token_correct
from tracestore.extract.text_tables import FIRST_TOKEN_LOCAL, TextRecord, emits, span_influences, table, text_tables
from tracestore.extract.tokenise import Tokenised, append_generated, token_text, token_texts
from tracestore.model import Item, Origin, SpanRequest, Trace, TraceOptions

SINK_POSITIONS: Final = (0,)
_ADVICE: Final = "shorten the item, explain fewer targets, lower max_edges, or use a machine with more memory"
_ATTRIBUTORS: WeakKeyDictionary[LoadedModel, Attributor] = WeakKeyDictionary()


def trace(loaded: LoadedModel, item: str | Item, options: TraceOptions | None = None, *, run_id: str | None = None) -> Trace:
    """Trace a prompt or an item; an item's own fields come before the options.

    Raises ItemError (the item cannot be traced), UnsupportedModelError, ModelOutputError (NaN or infinite logits), ResourceError (not
    enough memory) and ConservationError (the numbers do not add up).
    """
    return run_trace(loaded, plan_trace(loaded, item, options), run_id=run_id)


def attributor_for(loaded: LoadedModel) -> Attributor:
    """Give the model's Attributor, admitted on first use. Raises UnsupportedModelError with the reason."""
    found = _ATTRIBUTORS.get(loaded)
    if found is None:
        found = _ATTRIBUTORS[loaded] = Attributor(loaded.model)
    return found


def run_trace(loaded: LoadedModel, plan: PlannedTrace, *, run_id: str | None = None) -> Trace:
    """Compute a planned trace. `run_id` names the run of the extractor (by default one of its own)."""
    attributor = attributor_for(loaded)
    known = plan.prepared.tokens
    length = len(known) + plan.generation.max_new_tokens
    if torch.device(loaded.device).type == "cpu":
        outputs = len(plan.targets.where) if isinstance(plan.targets.where, tuple) else length
        needed = memory.trace_bytes(loaded.config, length, outputs)
        memory.require(needed, f"a trace of {length} tokens", _ADVICE)
    with _memory_errors(length):
        new = continue_tokens(loaded, known.token_ids, plan.generation) if plan.generation.max_new_tokens else []
        tokens = append_generated(loaded.tokenizer, known, new) if new else known
        record = _text_record(loaded, plan, tokens)
        specs = target_specs(plan.targets, tokens, plan.prepared.n_prompt, record.spans)
        run = attributor.run(torch.tensor(tokens.token_ids), sink_positions=SINK_POSITIONS, method=plan.method)
        answer = _answer(loaded, plan, tokens, run)
        tables, closure = _attribute(loaded, plan, record, run, specs)
    tables |= text_tables(record, loaded.model_id, plan.item, plan.item_id, answer_correct(answer, plan.item.expected))
    influences = tables[schema.edge_table("INFLUENCES", "Token", "Output")]
    if record.spans:
        tables[schema.edge_table("INFLUENCES", "Span", "Output")] = span_influences(record, influences, tables["Output"])
    tables[schema.edge_table("EMITS", "Output", "Token")] = emits(record, tables["Output"])
    header = _header(loaded, plan, tokens, run_id or uuid.uuid4().hex)
    header |= {"n_layers": len(attributor.layout.blocks), "n_heads": run.capture.state.heads}
    header |= {"closure": closure, "replay_gap": attributor.replay_gap}
    tables["Trace"] = table("Trace", [header])
    ordered = {name: tables[name] for name in schema.ARCHIVE_TABLES if name in tables and tables[name].num_rows}
    return Trace(plan.trace_id, ordered)


@contextmanager
def _memory_errors(length: int) -> Iterator[None]:
    """Turn the ways in which torch runs out of memory into ResourceError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise ResourceError(f"memory ran out in a trace of {length} tokens: {_ADVICE}") from None
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        raise ResourceError(f"memory ran out in a trace of {length} tokens: {_ADVICE}") from None


def _text_record(loaded: LoadedModel, plan: PlannedTrace, tokens: Tokenised) -> TextRecord:
    prepared = plan.prepared
    counts: Iterable[tuple[Origin, int]] = (
        ("prompt", prepared.n_prompt),
        ("given", prepared.n_given),
        ("generated", len(tokens) - len(prepared.tokens)),
    )
    spans = list(prepared.spans)
    if len(tokens.text) > prepared.prompt_chars:
        spans.append(SpanRequest("answer", prepared.prompt_chars, len(tokens.text)))
    return TextRecord(
        tokens=tokens,
        texts=tuple(token_texts(loaded.tokenizer, tokens)),
        origins=tuple(origin for origin, count in counts for _ in range(count)),
        sinks=tuple(pos in SINK_POSITIONS for pos in range(len(tokens))),
        spans=token_spans(tokens, spans),
    )


def _answer(loaded: LoadedModel, plan: PlannedTrace, tokens: Tokenised, run: ForwardPass) -> str:
    """Give the answer to compare with what was expected: the continuation, else the model's most probable next token."""
    said = tokens.text[plan.prepared.prompt_chars :]
    if said or plan.item.expected is None:
        return said
    return token_text(loaded.tokenizer, int(run.logits_row(len(tokens) - 1).argmax()))


def _attribute(
    loaded: LoadedModel, plan: PlannedTrace, record: TextRecord, run: ForwardPass, specs: list[TargetSpec]
) -> tuple[dict[str, pa.Table], float]:
    """Explain every target; give the joined tables and the worst closure error."""
    parts: dict[str, list[pa.Table]] = {}
    local, closure = record.first_output_local, 0.0
    token_locals = np.arange(FIRST_TOKEN_LOCAL, FIRST_TOKEN_LOCAL + len(record.tokens), dtype=np.int64)
    token_ids = np.asarray(record.tokens.token_ids, dtype=np.int64)
    for index, spec in enumerate(specs):
        found = run.attribute(spec, plan.pruning, last=index == len(specs) - 1)
        names = _names(loaded, plan, record, found)
        made = output_tables(found, names, first_local=local, token_locals=token_locals, token_ids=token_ids)
        local, closure = made.next_local, max(closure, found.closure)
        for name, rows in made.tables.items():
            parts.setdefault(name, []).append(rows)
    return {name: pa.concat_tables(rows) for name, rows in parts.items()}, closure


def _names(loaded: LoadedModel, plan: PlannedTrace, record: TextRecord, found: OutputAttribution) -> OutputNames:
    """Say what an Output is called and whether it is what was expected; its texts are the tokens as they stand in the text."""
    tokens, foil = record.tokens, found.foil_token_id
    stands = found.pos + 1 < len(tokens) and tokens.token_ids[found.pos + 1] == found.token_id
    text = record.texts[found.pos + 1] if stands else token_text(loaded.tokenizer, found.token_id)
    return OutputNames(
        output_id=ids.output_id(plan.trace_id, found.pos, found.token_id, foil),
        model_id=loaded.model_id,
        text=text,
        foil_text=None if foil is None else token_text(loaded.tokenizer, foil),
        correct=_output_correct(plan, tokens, found, text),
    )


def _output_correct(plan: PlannedTrace, tokens: Tokenised, found: OutputAttribution, text: str) -> bool | None:
    """Compare an explained token of the answer with what was expected; tokens of the prompt have no verdict."""
    answer_from = plan.prepared.n_prompt - 1
    if found.pos < answer_from:
        return None
    before = tokens.text[plan.prepared.prompt_chars : tokens.offsets[found.pos][1]]
    return token_correct(before, text, plan.item.expected)


@cache
def _versions() -> str:
    found = {"tracestore": __version__, "torch": version("torch"), "transformers": version("transformers")}
    return json.dumps(found, sort_keys=True)


def _header(loaded: LoadedModel, plan: PlannedTrace, tokens: Tokenised, run_id: str) -> dict[str, Any]:
    """Give the Trace's properties that do not depend on what was computed."""
    prompt = tokens.text[: plan.prepared.prompt_chars]
    return {
        "local": 0,
        "trace_id": plan.trace_id,
        "model_id": loaded.model_id,
        "model_fingerprint": loaded.fingerprint,
        "checkpoint_step": loaded.checkpoint_step,
        "run_id": run_id,
        "prompt_hash": ids.prompt_hash(prompt),
        "text": tokens.text,
        "n_tokens": len(tokens),
        "n_prompt_tokens": plan.prepared.n_prompt,
        "generation": json.dumps(generation_record(plan.generation), sort_keys=True),
        "method": plan.method,
        "keep": plan.pruning.keep,
        "max_edges": plan.pruning.max_edges,
        "dtype": loaded.dtype,
        "device": loaded.device,
        "versions": _versions(),
        "created_at": time.time_ns() // 1_000_000,
    }
