"""Name a trace before it is computed: everything that determines its numbers, resolved, and the `trace_id` over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from tracestore import ids
from tracestore.errors import BadInputError, ItemError
from tracestore.extract import frozen, secant
from tracestore.extract.generate import check_options
from tracestore.extract.item_format import STEP_RULES, item_record, parse_item
from tracestore.extract.loading import LoadedModel
from tracestore.extract.prepare import Prepared, prepare
from tracestore.extract.targets import TargetPlan, plan_targets
from tracestore.model import GenerationOptions, Item, Method, PruningOptions, StepRule, TraceOptions

METHOD_VERSIONS: Final[Mapping[Method, int]] = {"frozen": frozen.METHOD_VERSION, "secant": secant.METHOD_VERSION}
"""Part of every trace_id."""


@dataclass(frozen=True, slots=True)
class PlannedTrace:
    """A trace that could be computed: its id, and what the computation needs. `item` has an id."""

    trace_id: str
    item: Item
    item_id: str
    prepared: Prepared
    targets: TargetPlan
    generation: GenerationOptions
    pruning: PruningOptions
    method: Method
    steps: StepRule | None
    sensitivity: bool = False


def plan_trace(loaded: LoadedModel, item: str | Item, options: TraceOptions | None = None) -> PlannedTrace:
    """Resolve an item (or a prompt) without running the model; cheap enough to find out what is traced already.

    Raises ItemError for an item that cannot be traced, BadInputError for options outside their ranges.
    """
    options = options or TraceOptions()
    _check(options)
    line = None if isinstance(item, str) else item.line
    item = replace(parse_item({"prompt": item} if isinstance(item, str) else item_record(item)), line=line)
    generation = _generation(item, options)
    n_new = generation.max_new_tokens
    prepared = prepare(loaded.tokenizer, item, context_length=loaded.context_length, max_new_tokens=n_new)
    vocabulary = int(loaded.model.get_input_embeddings().weight.shape[0])
    if max(prepared.tokens.token_ids) >= vocabulary:
        raise BadInputError(f"the tokenizer of {loaded.model_id} makes tokens that the model does not have: it belongs to another model")
    steps = _step_rule(item, options, prepared.n_given > 0 or n_new > 0)
    targets = plan_targets(loaded.tokenizer, item, options, prepared, n_new=n_new, vocabulary=vocabulary)
    trace_id = ids.trace_id(
        model_fingerprint=ids.content_hash([loaded.fingerprint, loaded.dtype]),
        token_ids=prepared.tokens.token_ids,
        n_prompt_tokens=prepared.n_prompt,
        targets=[*targets.identity(), *_stretches(prepared, steps)],
        generation=generation_record(generation),
        method=options.method,
        method_version=METHOD_VERSIONS[options.method],
        pruning=_pruning(options),
    )
    return PlannedTrace(
        trace_id, item, str(item.id), prepared, targets, generation, options.pruning, options.method, steps, options.sensitivity
    )


def _pruning(options: TraceOptions) -> dict[str, object]:
    """Give what belongs into the `trace_id` of what is kept and computed besides."""
    pruning = options.pruning
    kept: dict[str, object] = {"keep": pruning.keep, "max_edges": pruning.max_edges}
    kept |= {"compositions": pruning.compositions, "paths": pruning.paths}
    return {**kept, "sensitivity": True} if options.sensitivity else kept


def _step_rule(item: Item, options: TraceOptions, continued: bool) -> StepRule | None:
    """An item's own steps, given or by rule, come before the options; without an answer there are none."""
    if item.steps is not None and not continued:
        raise ItemError("`steps` cuts an answer: the item needs a completion or max_new_tokens")
    given = any(span.kind == "step" for span in item.spans)
    return item.steps or (options.steps if continued and not given else None)


def _stretches(prepared: Prepared, steps: StepRule | None) -> list[object]:
    """Give what belongs into the `trace_id` of an item with spans: they are explained, and named in the trace's tables."""
    spans = sorted([span.kind, span.ref or "", span.start, span.end] for span in set(prepared.spans))
    return [{"spans": spans, "steps": steps}] if spans or steps else []


def _check(options: TraceOptions) -> None:
    check_options(options.generation)
    if options.method not in METHOD_VERSIONS:
        raise BadInputError(f"unknown method {options.method!r}: choose {', '.join(METHOD_VERSIONS)}")
    if not 0 < options.pruning.keep <= 1:
        raise BadInputError(f"keep is {options.pruning.keep}: it is a share, above 0 and at most 1")
    if options.pruning.max_edges < 1:
        raise BadInputError(f"max_edges is {options.pruning.max_edges}: keep at least one edge")
    for name, number in (("compositions", options.pruning.compositions), ("paths", options.pruning.paths)):
        if number < 0:
            raise BadInputError(f"{name} is {number}: it is a number of {name} to keep, or 0 for none")
    if options.steps is not None and options.steps not in STEP_RULES:
        raise BadInputError(f"unknown steps {options.steps!r}: choose {', '.join(STEP_RULES)}")


def _generation(item: Item, options: TraceOptions) -> GenerationOptions:
    """An item's own length comes first; a given answer is continued only if the item itself asks for it."""
    if item.max_new_tokens is not None:
        return replace(options.generation, max_new_tokens=item.max_new_tokens)
    answered = item.completion is not None or (item.messages is not None and item.messages[-1].get("role") == "assistant")
    return replace(options.generation, max_new_tokens=0) if answered else options.generation


def generation_record(options: GenerationOptions) -> dict[str, object]:
    """Give what determines a continuation, and nothing that does not: greedy has no seed, no continuation no options."""
    if options.max_new_tokens == 0:
        return {"max_new_tokens": 0}
    if options.temperature == 0:
        return {"max_new_tokens": options.max_new_tokens, "temperature": 0}
    sampled: dict[str, object] = {"temperature": options.temperature, "top_p": options.top_p, "seed": options.seed}
    return {"max_new_tokens": options.max_new_tokens, **sampled}
