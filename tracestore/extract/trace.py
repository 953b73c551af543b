"""Trace one item: `trace(model, prompt)` and, for pipelines, `plan_trace` and then `run_trace`.

1. Plan: resolve the item and name the trace (plan.py); nothing has run yet.
2. Estimate the memory; generate the continuation, if one is asked for.
3. One forward pass, one backward pass per target (attribute.py), each turned into tables at once; where these are many they wait in
   temporary files (spool.py).
4. Add what the text says: Item, Tokens, Spans with what supports the explained ones (chains.py); then the Trace's own row.

Position 0 is marked as the attention sink: there trained models park the attention that they do not need.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
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
from tracestore.extract.attribution import OutputAttribution, SpanSpec, TargetSpec
from tracestore.extract.chains import Chain, Unit, trace_chain
from tracestore.extract.generate import continue_tokens
from tracestore.extract.loading import LoadedModel
from tracestore.extract.output_tables import OutputNames, output_tables
from tracestore.extract.plan import PlannedTrace, generation_record, plan_trace
from tracestore.extract.spans import token_spans
from tracestore.extract.spool import TableSpool
from tracestore.extract.steps import step_spans
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
        run = attributor.run(
            torch.tensor(tokens.token_ids), sink_positions=SINK_POSITIONS, method=plan.method, tap=_walks(attributor, plan)
        )
        answer = _answer(loaded, plan, tokens, run)
        tables, chain, closure = _attribute(loaded, plan, record, run, specs)
    correct = answer_correct(answer, plan.item.expected)
    tables |= text_tables(record, loaded.model_id, plan.item, plan.item_id, correct, chain.spans)
    tables[schema.edge_table("SUPPORTS", "Span", "Span")] = chain.supports
    header = _header(loaded, plan, tokens, run_id or uuid.uuid4().hex)
    header |= {"n_layers": len(attributor.layout.blocks), "n_heads": run.capture.state.heads}
    header |= {"closure": closure, "replay_gap": attributor.replay_gap}
    tables["Trace"] = table("Trace", [header])
    ordered = {name: tables[name] for name in schema.ARCHIVE_TABLES if name in tables and tables[name].num_rows}
    return Trace(plan.trace_id, ordered)


def _walks(attributor: Attributor, plan: PlannedTrace) -> bool:
    """Tell whether compositions or paths are asked for, and the model has them (some have traces only: their columns stay null)."""
    asked = plan.pruning.compositions > 0 or plan.pruning.paths > 0
    return asked and attributor.without_compositions(plan.method) is None


_EXHAUSTED = ("allocate memory", "bad_alloc")
"""What torch's allocator says, and what C++ says where the memory inside an operator (a top-k, a sort) runs out."""


@contextmanager
def _memory_errors(length: int) -> Iterator[None]:
    """Turn the ways in which torch runs out of memory into ResourceError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise ResourceError(f"memory ran out in a trace of {length} tokens: {_ADVICE}") from None
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _EXHAUSTED):
            raise
        raise ResourceError(f"memory ran out in a trace of {length} tokens: {_ADVICE}") from None


def _text_record(loaded: LoadedModel, plan: PlannedTrace, tokens: Tokenised) -> TextRecord:
    prepared = plan.prepared
    counts: Iterable[tuple[Origin, int]] = (
        ("prompt", prepared.n_prompt),
        ("given", prepared.n_given),
        ("generated", len(tokens) - len(prepared.tokens)),
    )
    requests = list(prepared.spans)
    if len(tokens.text) > prepared.prompt_chars and not any(span.kind == "answer" for span in requests):
        requests.append(SpanRequest("answer", prepared.prompt_chars, len(tokens.text)))
    spans = token_spans(tokens, requests)
    if plan.steps is not None:
        spans = (*spans, *step_spans(tokens, prepared.n_prompt, prepared.prompt_chars, plan.steps))
    return TextRecord(
        tokens=tokens,
        texts=tuple(token_texts(loaded.tokenizer, tokens)),
        origins=tuple(origin for origin, count in counts for _ in range(count)),
        sinks=tuple(pos in SINK_POSITIONS for pos in range(len(tokens))),
        spans=spans,
    )


def _answer(loaded: LoadedModel, plan: PlannedTrace, tokens: Tokenised, run: ForwardPass) -> str:
    """Give the answer to compare with what was expected: the continuation, else the model's most probable next token."""
    said = tokens.text[plan.prepared.prompt_chars :]
    if said or plan.item.expected is None:
        return said
    return token_text(loaded.tokenizer, int(run.logits_row(len(tokens) - 1).argmax()))


def _attribute(
    loaded: LoadedModel, plan: PlannedTrace, record: TextRecord, run: ForwardPass, specs: Sequence[TargetSpec | SpanSpec]
) -> tuple[dict[str, pa.Table], Chain, float]:
    """Explain every target; give the joined tables, what supports the explained spans, and the worst closure error."""
    spool, units = TableSpool(), list[Unit]()
    composed = run.capture.state.tap
    walked = plan.pruning.paths if composed and run.attributor.without_paths(plan.method) is None else 0
    local, closure = record.first_output_local, 0.0
    token_locals = np.arange(FIRST_TOKEN_LOCAL, FIRST_TOKEN_LOCAL + len(record.tokens), dtype=np.int64)
    token_ids = np.asarray(record.tokens.token_ids, dtype=np.int64)
    for index, spec in enumerate(specs):
        last = index == len(specs) - 1
        found = run.attribute(
            spec,
            plan.pruning,
            last=last,
            compose=composed and plan.pruning.compositions > 0,
            paths=walked,
            sensitivity=plan.sensitivity,
        )
        names = _names(loaded, plan, record, found)
        made = output_tables(
            found, names, first_local=local, token_locals=token_locals, token_ids=token_ids, most=plan.pruning.compositions
        )
        local, closure = made.next_local, max(closure, found.closure)
        influences = made.tables[schema.edge_table("INFLUENCES", "Token", "Output")]
        emitted = _emitted(record.tokens, found)
        spool.add(made.tables)
        spool.add(
            {
                schema.edge_table("INFLUENCES", "Span", "Output"): span_influences(record, influences),
                schema.edge_table("EMITS", "Output", "Token"): emits(made.local, emitted),
            }
        )
        if emitted:
            share = influences["share"].to_numpy().astype(np.float64)
            score = found.scores[: len(share)]
            direct = np.where(found.sinks, 0.0, found.direct)[: len(share)]
            units.append(Unit(emitted[0], emitted[-1], found.explained, found.bias, score, share, direct))
    chain = trace_chain(record.spans, units, len(record.tokens), record.first_span_local)
    return spool.tables(), chain, closure


def _emitted(tokens: Tokenised, found: OutputAttribution) -> range:
    """Give the positions of the tokens that an Output explains, as far as they stand in the text."""
    if found.first_pos is not None:
        return range(found.first_pos + 1, found.pos + 2)
    stands = found.pos + 1 < len(tokens) and tokens.token_ids[found.pos + 1] == found.token_id
    return range(found.pos + 1, found.pos + 2 if stands else found.pos + 1)


def _names(loaded: LoadedModel, plan: PlannedTrace, record: TextRecord, found: OutputAttribution) -> OutputNames:
    """Say what an Output is called and whether it is what was expected; its texts are the tokens as they stand in the text."""
    tokens, foil, emitted = record.tokens, found.foil_token_id, _emitted(record.tokens, found)
    if len(emitted) > 1:
        text = tokens.text[tokens.offsets[emitted[0]][0] : tokens.offsets[emitted[-1]][1]]
    else:
        text = record.texts[emitted[0]] if emitted else token_text(loaded.tokenizer, found.token_id)
    return OutputNames(
        output_id=ids.output_id(plan.trace_id, found.pos, found.token_id, foil, first_pos=found.first_pos),
        model_id=loaded.model_id,
        text=text,
        foil_text=None if foil is None else token_text(loaded.tokenizer, foil),
        correct=_output_correct(plan, tokens, found, text),
    )


def _output_correct(plan: PlannedTrace, tokens: Tokenised, found: OutputAttribution, text: str) -> bool | None:
    """Compare an explained token of the answer, or a stretch at its beginning, with what was expected; the prompt has no verdict."""
    answer_from, first = plan.prepared.n_prompt - 1, found.pos if found.first_pos is None else found.first_pos
    if first < answer_from:
        return None
    if found.first_pos is not None:
        return answer_correct(text, plan.item.expected) if first == answer_from else None
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
