"""Multi-head central self-attention (SimViT): every token attends to the 3 x 3 window centred on it.

Positions outside the image have a zero key and a zero value, score 0, and take part in the softmax.

Forms: "unfold" cuts the windows out of zero-padded keys and values with `torch.nn.Unfold`, as the authors do; "slices" reads the
padded images at nine shifts and holds no window twice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Grid

FORMS = ("unfold", "slices")


class CentralAttention(nn.Module):
    """`CentralAttention` of specs/attention/mcsa.fov: parameters `q_proj`, `kv_proj`, `proj`."""

    def __init__(self, channels: int, heads: int, grid: Grid, window: int = 3, form: str = "unfold") -> None:
        super().__init__()
        self.heads, self.grid, self.window, self.form = heads, grid, window, form
        self.q_proj = nn.Linear(channels, channels)
        self.kv_proj = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.unfold = nn.Unfold(window, padding=window // 2)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q_proj(x) * (x.shape[-1] // self.heads) ** -0.5
        k, v = self.kv_proj(x).chunk(2, dim=-1)
        return self.proj(self.by_unfold(q, k, v) if self.form == "unfold" else self.by_slices(q, k, v))

    def by_unfold(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of tokens [B, N, C] over unfolded windows."""
        batch, tokens, channels = q.shape
        depth, places = channels // self.heads, self.window**2

        def windows(t: Tensor) -> Tensor:
            """Of every token the window around it, [B, H, N, places, D]."""
            image = t.transpose(1, 2).reshape(batch, channels, *self.grid)
            return self.unfold(image).view(batch, self.heads, depth, places, tokens).permute(0, 1, 4, 3, 2)

        query = q.view(batch, tokens, self.heads, 1, depth).transpose(1, 2)
        weight = (query @ windows(k).transpose(-2, -1)).softmax(dim=-1)
        return (weight @ windows(v)).squeeze(3).transpose(1, 2).reshape(batch, tokens, channels)

    def by_slices(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of tokens [B, N, C] over shifted slices."""
        batch, tokens, channels = q.shape
        rows, columns = self.grid
        margin = self.window // 2

        def image(t: Tensor) -> Tensor:
            return t.reshape(batch, rows, columns, self.heads, channels // self.heads)

        def shifts(t: Tensor) -> list[Tensor]:
            padded = F.pad(image(t), (0, 0, 0, 0, margin, margin, margin, margin))
            return [padded[:, y : y + rows, x : x + columns] for y in range(self.window) for x in range(self.window)]

        query = image(q)
        weight = torch.stack([(query * key).sum(-1) for key in shifts(k)], dim=-1).softmax(dim=-1)
        y = sum(weight[..., n : n + 1] * value for n, value in enumerate(shifts(v)))
        assert isinstance(y, Tensor)
        return y.reshape(batch, tokens, channels)
