"""What every writer added to the residual stream of one prompt: the embedding, every head, every MLP, and the biases.

Writers are numbered so that those a reader can see come first: 0 is the embedding; layer l has its heads at 1 + l (H + 1) + h and its MLP
at 1 + l (H + 1) + H. Biases of attention outputs and post-norms form a writer of their own; an MLP's biases are part of what it writes.

A site is a place where a reader reads: 2 l is pre(l) and 2 l + 1 is mid(l), which in a parallel block sees no more than pre(l) does;
2 L is read by the final norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from tracestore.extract.capture import Capture
from tracestore.extract.wiring import LayerWiring

CHUNK_ROWS: Final = 64
"""Positions whose writes are computed together."""

KEPT_POSITIONS: Final = 128
"""Of prompts up to so many tokens the writes are kept: they do not depend on the target."""


class Writers:
    """The writers of batch row `batch` of one forward pass (made with `tap`)."""

    def __init__(self, capture: Capture, wiring: Sequence[LayerWiring], batch: int = 0) -> None:
        self.capture, self.wiring, self.batch = capture, tuple(wiring), batch
        self.layers, self.heads = len(self.wiring), capture.state.heads
        self.parallel = capture.layout.parallel
        self.count = 1 + self.layers * (self.heads + 1)
        self.length = int(self.capture.pre[0].shape[1])
        self._residual: dict[int, Tensor] = {}
        self._kept: dict[int, tuple[Tensor, Tensor | None]] = {}  # chunk -> `written`, `biases`
        self.has_bias = any(w.output_bias is not None or self._post_bias(w) for w in self.wiring)

    @staticmethod
    def _post_bias(wiring: LayerWiring) -> bool:
        return any(w.post is not None and w.post.bias is not None for w in (wiring.attention_write, *wiring.mlp_writes))

    def head(self, layer: int, head: int = 0) -> int:
        """Give the number of a head."""
        return 1 + layer * (self.heads + 1) + head

    def mlp(self, layer: int) -> int:
        """Give the number of a layer's MLP."""
        return 1 + layer * (self.heads + 1) + self.heads

    def seen(self, site: int) -> int:
        """Count the writers that `site` can see: they are the first so many."""
        layer, mid = divmod(site, 2)
        return 1 + layer * (self.heads + 1) + (self.heads if mid and not self.parallel else 0)

    def name(self, writer: int) -> str:
        """Name a writer: emb, L5.h1, L0.mlp."""
        if writer == 0:
            return "emb"
        layer, part = divmod(writer - 1, self.heads + 1)
        return f"L{layer}.mlp" if part == self.heads else f"L{layer}.h{part}"

    def residual(self, site: int) -> Tensor:
        """Give the residual stream [T, d] at a site."""
        found = self._residual.get(site)
        if found is None:
            layer, mid = divmod(site, 2)
            x = self.capture.mid[layer] if mid and layer in self.capture.mid else self.capture.pre[layer]
            batch, length = self.capture.pre[0].shape[:2]  # some layers flatten the two
            found = self._residual[site] = x.detach().reshape(batch, length, -1)[self.batch]
        return found

    def heads_out(self, layer: int) -> Tensor:
        """Give what the heads of a layer put out, [T, H, D]."""
        return self.capture.state.tapped[layer].out[self.batch]

    def attention_scale(self, layer: int, rows: Tensor) -> Tensor | None:
        """Give the scale [N, 1] of the norm that attention's output passes through at `rows` [N]."""
        wiring = self.wiring[layer]
        if wiring.attention_write.post is None:
            return None
        z = self.heads_out(layer)[rows].flatten(1)
        y = torch.matmul(z, wiring.output.to(z.dtype).flatten(0, 1))
        return wiring.attention_write.scale(y if wiring.output_bias is None else y + wiring.output_bias.to(y.dtype))

    def mlp_parts(self, layer: int, rows: Tensor) -> list[Tensor]:
        """Give what each part of a layer's MLP wrote at `rows` [N]: [N, d] each, before a post-norm."""
        return [self.mlp_part(layer, number, rows) for number in range(len(self.capture.written.get(layer, [])))]

    def mlp_part(self, layer: int, number: int, rows: Tensor) -> Tensor:
        """Give what one part of a layer's MLP wrote at `rows` [N]: [N, d], before a post-norm."""
        batch, length = self.capture.pre[0].shape[:2]
        return self.capture.written[layer][number].detach().reshape(batch, length, -1)[self.batch, rows]

    def into_output(self, rows: Tensor, vectors: Tensor) -> Tensor:
        """Give the gradients [N, d] at the last State of directions `vectors` [N, d] at the final norm's output at `rows`."""
        form = self.capture.norms[self.capture.layout.final_norm]
        return form.transposed(vectors, form.scale(self.residual(2 * self.layers)[rows]))

    def chunk(self, number: int, buffer: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Give `written` and `biases` of the positions from `number` * CHUNK_ROWS; in `buffer` [A, N, d] if they are not kept."""
        if number in self._kept:
            return self._kept[number]
        rows = torch.arange(number * CHUNK_ROWS, min((number + 1) * CHUNK_ROWS, self.length), device=self.residual(0).device)
        keep = self.length <= KEPT_POSITIONS
        found = self.written(rows, None if keep or buffer is None or buffer.shape[1] != len(rows) else buffer), self.biases(rows)
        if keep:
            self._kept[number] = found
        return found

    def at(self, position: int) -> tuple[Tensor, Tensor | None]:
        """Give what every writer wrote at a position [A, d], and the biases that each site sees there [2 L + 1, d]."""
        if self.length <= KEPT_POSITIONS:
            number, row = divmod(position, CHUNK_ROWS)
        else:
            number, row = -1 - position, 0  # one by one
            if number not in self._kept:
                rows = torch.tensor([position], device=self.residual(0).device)
                self._kept[number] = self.written(rows), self.biases(rows)
        written, biases = self.chunk(number)
        return written[:, row], None if biases is None else biases[:, row]

    def written(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """Give what every writer wrote at `rows` [N]: [A, N, d]; in `out` where that is given."""
        x0 = self.residual(0)
        if out is None:
            out = x0.new_empty(self.count, len(rows), x0.shape[-1])
        out[0] = x0[rows]
        for layer, wiring in enumerate(self.wiring):
            first = self.head(layer)
            z, scale = self.heads_out(layer)[rows].transpose(0, 1), self.attention_scale(layer, rows)
            torch.bmm(z if scale is None else z * scale, wiring.writing(out.dtype), out=out[first : first + self.heads])
            mlp = out[self.mlp(layer)].zero_()
            for part, write in zip(self.mlp_parts(layer, rows), wiring.mlp_writes, strict=True):
                mlp += write.apply(part, write.scale(part))
        return out

    def biases(self, rows: Tensor) -> Tensor | None:
        """Give the biases that each site sees at `rows` [N], summed: [2 L + 1, N, d], or None where there are none."""
        if not self.has_bias:
            return None
        x0 = self.residual(0)
        out = x0.new_zeros(2 * self.layers + 1, len(rows), x0.shape[-1])
        for layer, wiring in enumerate(self.wiring):
            write, added = wiring.attention_write, torch.zeros_like(out[0])
            if wiring.output_bias is not None:
                added += write.apply(wiring.output_bias.to(out.dtype).expand_as(added), self.attention_scale(layer, rows))
            shift = write.bias(out)
            added = added if shift is None else added + shift
            after = 2 * layer + (2 if self.parallel else 1)
            out[after:] += added
            for mlp_write in wiring.mlp_writes:
                shift = mlp_write.bias(out)
                if shift is not None:
                    out[2 * layer + 2 :] += shift
        return out
