"""One step backwards along a path, for many paths of one layer at once: exact, with every path's own gradient vector.

    through head (l,h) at i:  gz = W_O^h' c P' g(i)        its edges and what its biases contribute, by channel:
      frozen   V              a_ij < gz, v_j >
      secant   V              W_ij < gz, v_j >             W and ds by the rule in `secant`, f = half ds cap(r)/r scale
               K              f_ij < q_i, k_j >
               Q              < dq_i, q_i >                dq_i = sum over j of f_ij k_j
    ... V to j:               g(j) = a_ij (or W_ij) D_j' W_V' gz
    ... K to j:               g(j) = D_j' W_K' M_j' f_ij q_i              M: positions and norms of queries and keys, see `address_wiring`
    ... Q to i itself:        g(i) = D_i' W_Q' M_i' dq_i
    through the MLP at i:     g(i) = D' ( gradient of the MLP itself, see `mlp_steps` )

Terms added to the scores and sinks count as biases of keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from tracestore.extract.attribution import KEY, QUERY, VALUE
from tracestore.extract.mlp_steps import MlpSteps
from tracestore.extract.scores import by_group, groups_of, pair_scores
from tracestore.extract.secant import HALF
from tracestore.extract.writers import Writers

if TYPE_CHECKING:
    from tracestore.extract.attribute import Attributor


@dataclass(frozen=True, slots=True)
class HeadStep:
    """What heads see, for n of them; `edges` and `bias` by channel: V alone, or V, K and Q.

    `edges` [n, T] or [n, T + T + 1] (values by source, keys by source, the query), `bias` [n, 1 or 3]; `passed` [n, ...] is what
    `PathSteps.edges` needs to go on: gz [D], value weights [T], then for `secant` f [T] and dq [Dk].
    """

    edges: Tensor
    bias: Tensor
    passed: Tensor


class PathSteps:
    """The steps of one prompt's paths; shared by all its outputs."""

    def __init__(self, attributor: Attributor, writers: Writers) -> None:
        self.attributor, self.writers = attributor, writers
        self.length = writers.length
        self.channels = 3 if writers.capture.state.method == "secant" else 1  # of a head: V, K, Q
        self.mlps = MlpSteps(attributor, writers)

    def children(self, site: int, positions: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Give the weights of all writers [n, A] and of the biases [n] that `site` sees, for gradients `g` [n, d] at `positions` [n]."""
        seen = self.writers.seen(site)
        weight, bias = g.new_zeros(g.shape[0], self.writers.count), g.new_zeros(g.shape[0])
        for position, mine in groups_of(positions):
            written, biases = self.writers.at(position)
            weight[mine, :seen] = g[mine] @ written[:seen].T
            if biases is not None:
                bias[mine] = g[mine] @ biases[site]
        return weight, bias

    def heads(self, layer: int, heads: Tensor, positions: Tensor, g: Tensor) -> HeadStep:
        """Go through heads [n] of a layer at query `positions` [n] with gradients `g` [n, d] at the residual stream after them."""
        writers, wiring, batch = self.writers, self.writers.wiring[layer], self.writers.batch
        state = writers.capture.state
        kept = state.tapped[layer]
        query, key, value = kept.query[batch], kept.key[batch], kept.value[batch]
        scale = writers.attention_scale(layer, positions)
        gz = by_group(wiring.attention_write.transposed(g, scale), wiring.output.to(g.dtype).transpose(1, 2), groups_of(heads))
        group = heads // (query.shape[0] // key.shape[0])
        groups = groups_of(group)
        scores = pair_scores(kept.pattern, query, key, heads, positions, batch)
        whole = by_group(gz, value.transpose(1, 2), groups)  # [n, T]
        from_bias = gz.new_zeros(gz.shape[0])
        value_bias = state.value_bias.get(layer)
        if value_bias is not None:
            from_bias = (gz * value_bias[group].to(gz.dtype)).sum(-1)
        if self.channels == 1:
            a = scores.attention()[:, 0]
            bias = (from_bias * a.sum(-1))[:, None]
            return HeadStep(a * (whole - from_bias[:, None]), bias, torch.cat([gz, a], 1))
        rule, sink_bias = scores.rows(), gz.new_zeros(gz.shape[0])
        ds, weight = rule.address(whole[:, None] if scores.sink is None else functional.pad(whole[:, None], (0, 1))), rule.value
        if scores.sink is not None:
            sink_bias = ds[:, 0, -1] * scores.sink.to(gz.dtype)
        ds, weight = ds[:, 0, : self.length], weight[:, 0, : self.length]
        if scores.added is not None:
            sink_bias = sink_bias + (ds * scores.added[:, 0]).sum(-1)
        f = ds * (HALF * kept.pattern.scaling) if scores.ratio is None else ds * scores.ratio[:, 0] * (HALF * kept.pattern.scaling)
        q, dq = query[heads, positions], by_group(f, key, groups)
        raw = scores.raw[:, 0] / kept.pattern.scaling  # < q, k >
        address = state.address_bias.get(layer)
        query_edge, query_bias = (dq * q).sum(-1), gz.new_zeros(gz.shape[0])
        if address is not None:
            shift = by_group(q, address.key[batch].transpose(1, 2), groups)
            raw, sink_bias = raw - shift, sink_bias + (f * shift).sum(-1)
            query_bias = (dq * address.query[batch][heads, positions]).sum(-1)
        edges = torch.cat([weight * (whole - from_bias[:, None]), f * raw, (query_edge - query_bias)[:, None]], 1)
        bias = torch.stack([from_bias * weight.sum(-1), sink_bias, query_bias], 1)
        return HeadStep(edges, bias, torch.cat([gz, weight, f, dq], 1))

    def edges(self, layer: int, heads: Tensor, positions: Tensor, columns: Tensor, passed: Tensor) -> tuple[Tensor, Tensor]:
        """Go along one edge of each head: give the positions [n] it comes from and the gradients [n, d] at the States there.

        `columns` [n] are those of `HeadStep.edges`, `passed` what `heads` gave.
        """
        writers, wiring = self.writers, self.writers.wiring[layer]
        kept, norm = writers.capture.state.tapped[layer], wiring.attention_norm
        width, length = kept.value.shape[3], self.length
        channel = torch.div(columns, length, rounding_mode="floor")
        source = torch.where(channel == QUERY, positions, columns % length)
        groups = heads // (kept.query.shape[1] // kept.key.shape[1])
        out = passed.new_empty(passed.shape[0], writers.residual(0).shape[-1])
        for which, mine in groups_of(channel):
            given, at = passed[mine], source[mine]
            each = torch.arange(given.shape[0], device=given.device)
            if which == VALUE:
                amount = given[each, width + at]
                out[mine] = by_group(given[:, :width] * amount[:, None], wiring.reading(out.dtype), groups_of(groups[mine]))
                continue
            query_turn, key_turn = writers.capture.turns[layer]
            if which == KEY:
                f = given[each, width + length + at]
                turn, to, g = key_turn, groups[mine], kept.query[writers.batch][heads[mine], positions[mine]] * f[:, None]
            else:
                turn, to, g = query_turn, heads[mine], given[:, width + 2 * length :]
            out[mine] = by_group(turn.back(g, writers.batch, to, at), turn.reading.reading(out.dtype), groups_of(to))
        return source, out if norm is None else out * norm.scale(writers.residual(2 * layer)[source])
