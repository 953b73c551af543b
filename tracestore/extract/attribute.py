"""The entry of the engine: `Attributor(model).run(input_ids)` once per prompt, `.attribute(target)` once per explained output.

1. First use of a model: take it apart (`layout`), prove its norms (`norms`), find how it makes logits (`logits`), then `admit` it: the
   frozen forward pass must reproduce its logits, may not see the future, and every identity must hold on a short random prompt.
2. `run`: one frozen forward pass. 3. `attribute`: one backward pass, checked and pruned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from tracestore.errors import BadInputError, ConservationError, ModelOutputError, UnsupportedModelError
from tracestore.extract import frozen
from tracestore.extract.address_bias import finding_address_bias
from tracestore.extract.address_wiring import AddressReading, find_addresses
from tracestore.extract.attention import AttentionState, Rule, attend_frozen
from tracestore.extract.attribution import AttentionEdges, Bools, Floats, OutputAttribution, Paths, SpanSpec, TargetSpec
from tracestore.extract.capture import Capture, ReaderGradients
from tracestore.extract.compositions import compositions
from tracestore.extract.freeze import HALF, quieten, use_plain_experts
from tracestore.extract.freeze import frozen as frozen_model
from tracestore.extract.layout import ModelLayout, find_layouts
from tracestore.extract.logits import LogitReader, logit_reader
from tracestore.extract.norms import recognise_all
from tracestore.extract.path_steps import PathSteps
from tracestore.extract.paths import find_paths
from tracestore.extract.prune import prune
from tracestore.extract.secant_attention import attend_secant
from tracestore.extract.sensitivity import attend_plainly, edge_sensitivity
from tracestore.extract.value_bias import find_value_bias
from tracestore.extract.wiring import LayerWiring, find_wiring
from tracestore.extract.writers import Writers
from tracestore.model import Gauge, Method, PruningOptions

_ATTENTION: Final[Mapping[Rule, Callable[..., Tensor]]] = {"frozen": attend_frozen, "secant": attend_secant, "gradient": attend_plainly}
CLOSURE_TOLERANCE = 1e-4
"""Largest relative error in float32, for closure and for every node."""


class Attributor:
    """A causal language model prepared for attribution.

    Raises UnsupportedModelError, naming the reason, when the model cannot be decomposed exactly.
    """

    def __init__(self, model: Any, *, admit: bool = True) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.replay_gap = 0.0
        """Largest |logit - the model's own logit| seen so far, logits."""
        layouts = find_layouts(model)
        with evaluating(model):
            self.reader: LogitReader = logit_reader(model, layouts[0].head, self.short_prompt())
        refused: list[UnsupportedModelError] = []
        for layout in layouts:
            try:
                self._take(layout, admit=admit)
                return
            except UnsupportedModelError as error:
                refused.append(error)
        raise refused[0]

    def _take(self, layout: ModelLayout, *, admit: bool) -> None:
        self.layout = layout
        self.norms = recognise_all(layout)
        self.running: AttentionState | None = None
        """State of the latest forward pass."""
        self._wiring: tuple[LayerWiring, ...] | None = None
        self._unwired: str | None = None
        self.plain_mlps: dict[tuple[Rule, int, int], bool] = {}
        """By method, layer and part: is the MLP known to be linear layers around factors, or not to be? See `mlp_steps`."""
        self._addresses: tuple[tuple[AddressReading, AddressReading], ...] | int | None = None
        self._value_bias: dict[int, Tensor] | None = None
        self._unbiased: set[int] = set()  # layers whose queries and keys are known to hold no bias
        self._admitted: set[Method] = set() if admit else {"frozen", "secant"}
        self.admit("frozen")

    def admit(self, method: Method) -> None:
        """Check on first use that this model's decomposition by `method` adds up; raises UnsupportedModelError when it does not."""
        if method not in self._admitted:
            from tracestore.extract.admission import admit_model

            self._admitted.add(method)
            try:
                admit_model(self, method)
            except BaseException:
                self._admitted.discard(method)
                raise

    @property
    def family(self) -> str:
        """Name of the family table that was used, or `generic`."""
        return self.layout.family

    @property
    def wiring(self) -> tuple[LayerWiring, ...]:
        """How heads and MLPs are wired to the residual stream, found on first use.

        Raises UnsupportedModelError, naming the reason, for a model that has no compositions and paths.
        """
        if self._unwired is not None:
            raise UnsupportedModelError(self._unwired)
        if self._wiring is None:
            try:
                self._wiring = find_wiring(self)
            except UnsupportedModelError as error:
                self._unwired = str(error)
                raise
        return self._wiring

    @property
    def addresses(self) -> tuple[tuple[AddressReading, AddressReading], ...] | int:
        """How every layer reads its queries and keys, found on first use; or the first layer where that has another form."""
        if self._addresses is None:
            self._addresses = find_addresses(self)
        return self._addresses

    def without_compositions(self, method: Rule = "frozen") -> str | None:
        """Say why the model has neither compositions nor paths by a method, or None."""
        try:
            _ = self.wiring
        except UnsupportedModelError as error:
            return str(error)
        if method != "secant" or isinstance(self.addresses, tuple):
            return None
        return (
            f"{type(self.model).__name__} has no compositions and paths by the method secant: its queries or keys in layer "
            f"{self.addresses} are no slice of one linear layer's output, rotated and scaled"
        )

    def without_paths(self, method: Rule = "frozen") -> str | None:
        """Say why the model has no paths by a method, or None."""
        if (refused := self.without_compositions(method)) is not None:
            return refused
        reasons = ((layer, call.refused) for layer, wiring in enumerate(self.wiring) for call in wiring.calls)
        found = next(((layer, reason) for layer, reason in reasons if reason is not None), None)
        return None if found is None else f"{type(self.model).__name__} has no paths: {found[1]} in layer {found[0]}"

    @property
    def half(self) -> bool:
        """Are the weights bfloat16 or float16? (The decomposition is float32 all the same.)"""
        return next(self.model.parameters()).dtype in HALF

    def short_prompt(self, length: int = 7) -> Tensor:
        """Give random token ids [1, length] to try the model on."""
        generator = torch.Generator().manual_seed(1)
        config = self.model.config.get_text_config()
        ids = torch.randint(0, int(config.vocab_size), (1, length), generator=generator)
        special = getattr(config, "pad_token_id", None)
        ids[ids == (-1 if special is None else special)] = min(5, int(config.vocab_size) - 1)
        return ids.to(self.device)

    def run(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        sink_positions: Iterable[int] = (0,),
        method: Method = "frozen",
        keep: bool = False,
        tap: bool = False,
    ) -> ForwardPass:
        """Run one forward pass over `input_ids` [T] (or [B, T] with `attention_mask`), to be explained by `method`.

        `keep` is for the identities. Raises UnsupportedModelError on first use of a method that does not suit the model.
        """
        self.admit(method)
        ids = (input_ids if input_ids.dim() == 2 else input_ids[None]).to(self.device)
        if ids.shape[1] == 0:
            raise BadInputError("the prompt has no tokens: give at least one")
        given = {k: v for k, v in (("attention_mask", attention_mask), ("position_ids", position_ids)) if v is not None}
        capture = self.forward(ids, given, method, keep=keep, tap=tap)
        run = ForwardPass(self, ids, capture, frozenset(sink_positions), given)
        if self.half:
            self.replay_gap = max(self.replay_gap, run.measure_replay_gap())
        return run

    def forward(self, ids: Tensor, given: Mapping[str, Tensor], method: Rule, *, keep: bool = False, tap: bool = False) -> Capture:
        """Run the patched model over `ids` [B, T]; `given` may hold attention_mask and position_ids."""
        layer_of = {id(m): i for i, block in enumerate(self.layout.blocks) for m in block.layer.modules()}
        state = AttentionState(layer_of=layer_of, method=method, attention=_ATTENTION[method], keep=keep, tap=tap)
        capture = Capture(self.layout, self.norms, state)
        if tap and method == "secant" and self.without_compositions(method) is None:
            assert isinstance(self.addresses, tuple)
            capture.readings = self.addresses
        with frozen_model(self.model, self.layout, self.norms, state), torch.enable_grad():
            if self._value_bias is None:
                self._value_bias = find_value_bias(self.model, self.layout, self.norms, state, {"input_ids": ids, **given})
                state.norm_scales.forget()
            state.value_bias = self._value_bias
            self.running = state
            with capture.watching(), ExitStack() as stack:
                if method == "secant":
                    stack.enter_context(finding_address_bias(self.layout, self.norms, state, self._unbiased))
                self.model.base_model(input_ids=ids, use_cache=False, **given)
        missing = [i for i in range(len(self.layout.blocks)) if state.called.get(i, 0) != 1]
        if missing:
            raise UnsupportedModelError(
                f"layer {missing[0]} of {type(self.model).__name__} does not attend through transformers' attention interface exactly "
                "once (recurrent, linear or privately written attention): it cannot be traced"
            )
        if capture.final is None or len(capture.pre) != len(self.layout.blocks) + 1:
            raise UnsupportedModelError(f"{type(self.model).__name__} does not end in its final norm: it cannot be traced")
        return capture


@dataclass(frozen=True, slots=True)
class _Part:
    """One prediction that is explained: < `vector` [d], final state at `pos` > + `bias`, and what the model says there."""

    pos: int
    token_id: int
    foil_token_id: int | None
    gauge: Gauge
    vector: Tensor
    bias: float
    logit: float
    std: float
    log_prob: float
    vocab_rank: int


class ForwardPass:
    """One frozen forward pass; each `attribute` costs one backward pass through it."""

    def __init__(
        self, attributor: Attributor, ids: Tensor, capture: Capture, sinks: frozenset[int], given: Mapping[str, Tensor] | None = None
    ) -> None:
        self.attributor, self.ids, self.capture, self.sinks, self.given = attributor, ids, capture, sinks, given or {}
        self._plain: Capture | None = None  # the same pass with true derivatives, made when sensitivities are first asked for
        self._steps: dict[int, PathSteps] = {}

    @property
    def length(self) -> int:
        """Number of positions T."""
        return int(self.ids.shape[1])

    def final_state(self, pos: int, batch: int = 0) -> Tensor:
        """Give the final normed state [d] at `pos`."""
        assert self.capture.final is not None
        return self.capture.final[batch, pos].detach()

    def logits_row(self, pos: int, *, batch: int = 0, capped: bool = True) -> Tensor:
        """Give the logits [V] at `pos`; raises ModelOutputError when they are NaN or infinite."""
        reader = self.attributor.reader
        row = reader.row(self.final_state(pos, batch))
        if not bool(torch.isfinite(row).all()):
            raise ModelOutputError(f"the model's logits at position {pos} are NaN or infinite: its weights are broken or overflow")
        return reader.capped(row) if capped else row

    def measure_replay_gap(self) -> float:
        """Compare the logits at the last position with the model's own, in its own number format: largest difference, logits."""
        with evaluating(self.attributor.model), torch.no_grad():
            own = self.attributor.model(input_ids=self.ids, use_cache=False, **self.given).logits[:, -1]
        ours = torch.stack([self.logits_row(self.length - 1, batch=b) for b in range(self.ids.shape[0])])
        return float((ours - own.to(ours.dtype)).abs().max())

    def attribute(
        self,
        target: TargetSpec | SpanSpec,
        pruning: PruningOptions | None = None,
        *,
        batch: int = 0,
        last: bool = False,
        compose: bool = False,
        paths: int = 0,
        sensitivity: bool = False,
    ) -> OutputAttribution:
        """Explain one target: a prediction, or the sum of a span's. `last` frees the graph: no further target can follow.

        `sensitivity` adds first-order estimates of single edges, for one more forward (per prompt) and backward pass of the plain model.
        Of a tapped run, `compose` adds the compositions and `paths` so many of the largest exact paths.

        Raises ConservationError when the numbers do not add up, ModelOutputError on NaN or infinite logits.
        """
        pruning = pruning or PruningOptions()
        parts = [self._read(part, batch) for part in (target.parts if isinstance(target, SpanSpec) else (target,))]
        seeds = frozen.Seeds(
            positions=tuple(part.pos for part in parts),
            vectors=torch.stack([part.vector for part in parts]),
            biases=tuple(part.bias for part in parts),
            sinks=self.sinks,
        )
        readers = ReaderGradients() if compose else None
        found = frozen.explain(self.capture, seeds, pruning.max_edges, batch=batch, retain=not last, readers=readers)
        std = math.hypot(*(part.std for part in parts))
        scale = max(abs(found.explained), std)
        closure = found.closure_error / scale
        node_error = max(found.node_errors.values()) / scale
        _check(closure, found.node_errors, scale)
        sinks: Bools = np.isin(np.arange(self.length), list(self.sinks))
        heads, mlps = np.abs(found.flows.head_relevance).sum(), np.abs(found.flows.mlp_relevance).sum()
        direct = found.direct_value + found.direct_address
        composed = None
        if readers is not None:
            writers = self.steps(batch).writers
            composed = compositions(writers, readers, seeds, found.flows, found.explained, float(found.final_bias.sum()))
            _check_sums("compositions", np.abs(composed.weight.sum(0) - composed.relevance).max(), scale)
        walked = self._walk(seeds, found.final_bias, paths, batch) if paths else None
        if walked is not None:
            _check_sums("paths", max(walked.split_error, abs(walked.total - found.explained)), scale)
        graph = prune(found.flows, found.edges, seeds.positions, pruning)
        if sensitivity:
            graph = replace(graph, sensitivity=self._sensitivity(seeds, graph.edges, batch, last=last))
        return OutputAttribution(
            pos=seeds.positions[-1],
            first_pos=seeds.positions[0] if isinstance(target, SpanSpec) else None,
            positions=seeds.positions,
            token_id=parts[-1].token_id,
            foil_token_id=parts[0].foil_token_id if len(parts) == 1 else None,
            gauge=parts[0].gauge,
            logit=sum(part.logit for part in parts),
            explained=found.explained,
            explained_at=found.explained_at,
            logit_std=std,
            prob=math.exp(sum(part.log_prob for part in parts)),
            vocab_rank=max(part.vocab_rank for part in parts),
            closure=closure,
            node_error=node_error,
            bias=found.bias,
            scores=found.scores,
            direct_value=found.direct_value,
            direct_address=found.direct_address,
            total_value=found.flows.value_out_abs.sum(0),
            total_address=found.flows.key_out_abs.sum(0),
            removal=found.removal,
            sinks=sinks,
            sink_mass=float(direct[sinks].sum() / direct.sum()) if direct.sum() > 0 else 0.0,
            mlp_share=float(mlps / (heads + mlps)) if heads + mlps > 0 else 0.0,
            head_vector=found.flows.head_relevance.sum(2).reshape(-1),
            flows=found.flows,
            tops=found.tops,
            graph=graph,
            compositions=composed,
            paths=walked,
        )

    def _sensitivity(self, seeds: frozen.Seeds, edges: AttentionEdges, batch: int, *, last: bool) -> Floats:
        if self._plain is None:
            self._plain = self.attributor.forward(self.ids, self.given, "gradient", keep=True)
        return edge_sensitivity(self._plain, self.capture, seeds.positions, seeds.vectors, edges, batch, retain=not last)

    def _read(self, target: TargetSpec, batch: int) -> _Part:
        """Read the logits of one prediction and settle what is explained there."""
        pos = self._position(target.pos)
        raw = self.logits_row(pos, batch=batch, capped=False)
        shown = self.attributor.reader.capped(raw)
        token, foil, gauge = choose_tokens(target, raw)
        vector, bias = self.attributor.reader.direction(gauge, token, foil, self.final_state(pos, batch))
        return _Part(
            pos=pos,
            token_id=token,
            foil_token_id=foil,
            gauge=gauge,
            vector=vector,
            bias=bias,
            logit=float(shown[token]),
            std=float(raw.std(correction=0)),
            log_prob=float(torch.log_softmax(shown.double(), -1)[token]),
            vocab_rank=int((shown > shown[token]).sum()) + 1,
        )

    def steps(self, batch: int = 0) -> PathSteps:
        """Give what compositions and paths of one batch row share. Raises UnsupportedModelError where a model has none."""
        refused = self.attributor.without_compositions(self.capture.state.method)
        if refused is not None:
            raise UnsupportedModelError(refused)
        if batch not in self._steps:
            self._steps[batch] = PathSteps(self.attributor, Writers(self.capture, self.attributor.wiring, batch))
        return self._steps[batch]

    def _walk(self, seeds: frozen.Seeds, final_bias: Floats, wanted: int, batch: int) -> Paths:
        refused = self.attributor.without_paths(self.capture.state.method)
        if refused is not None:
            raise UnsupportedModelError(refused)
        return find_paths(self.steps(batch), seeds, final_bias, wanted)

    def _position(self, pos: int) -> int:
        if not -self.length <= pos < self.length:
            raise BadInputError(f"target position {pos} is outside the {self.length} tokens of this trace")
        return pos % self.length


def choose_tokens(target: TargetSpec, row: Tensor) -> tuple[int, int | None, Gauge]:
    """Settle token, foil and gauge of a target on its logits [V]."""
    vocabulary = row.shape[0]
    for given in (target.token_id, target.foil_token_id):
        if given is not None and not 0 <= given < vocabulary:
            raise BadInputError(f"token id {given} is outside the vocabulary of {vocabulary}")
    token = int(row.argmax()) if target.token_id is None else target.token_id
    foil = target.foil_token_id
    if target.runner_up:
        others = row.clone()
        others[token] = -torch.inf
        foil = int(others.argmax())
    if foil == token:
        raise BadInputError(f"the foil is the explained token itself (id {token}): choose another foil")
    gauge: Gauge = target.gauge or ("centred" if foil is None else "foil")
    if gauge == "foil" and foil is None:
        raise BadInputError("gauge 'foil' needs a foil token")
    return token, foil, gauge


def _check(closure: float, node_errors: dict[str, float], scale: float) -> None:
    name, worst = max(node_errors.items(), key=lambda item: item[1])
    if not closure <= CLOSURE_TOLERANCE:
        raise ConservationError(
            f"token scores and biases miss the explained logit by {closure:.1e} of it (identity I8, allowed {CLOSURE_TOLERANCE:.0e}); "
            f"worst node kind: {name!r} ({worst / scale:.1e})"
        )
    if not worst / scale <= CLOSURE_TOLERANCE * 10:
        raise ConservationError(f"conservation at {name!r} nodes is off by {worst / scale:.1e} of the explained logit (identity I9)")


def _check_sums(what: str, error: float, scale: float) -> None:
    if not error / scale <= CLOSURE_TOLERANCE * 10:
        option = f"trace without them (--{what} 0)"
        raise ConservationError(f"{what} add up to something else than they should by {error / scale:.1e} (identity I13): {option}")


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Let `model` run as itself: no dropout, and, in float64, without the kernels for mixtures of experts that do not know it."""
    with ExitStack() as stack:
        quieten(model, stack)
        if next(model.parameters()).dtype == torch.float64:
            use_plain_experts(model, stack)
        yield
