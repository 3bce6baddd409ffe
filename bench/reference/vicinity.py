"""Vicinity attention (VVT) in the linear form of its release, guards included.

A query weighs a key by cos(a(i) - a(j)) + cos(b(i) - b(j)) (form "sum") or by the product of the two ("product"). Either is a sum of
four products of a feature of i and one of j, so keys and values meet in a matrix of 4E x E and nothing of N x N is computed.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Grid


def guard(t: Tensor) -> Tensor:
    """Keeps a magnitude between 1e-4 and 1e4; 0 stays 0."""
    return torch.sign(t) * t.abs().clamp(1e-4, 1e4)


def features(grid: Grid, form: str) -> Tensor:
    """The four features of every token, [N, 4], float64."""
    rows, columns = grid
    index = torch.arange(rows * columns)
    a = math.pi / 2 * (index // columns).double() / rows
    b = math.pi / 2 * (index % columns).double() / columns
    if form == "sum":
        parts = [a.cos(), a.sin(), b.cos(), b.sin()]
    else:
        parts = [a.cos() * b.cos(), a.cos() * b.sin(), a.sin() * b.cos(), a.sin() * b.sin()]
    return torch.stack(parts, dim=-1)


class VicinityAttention(nn.Module):
    """`VicinityAttention` of specs/attention/vicinity.fov: parameters `q_proj`, `k_proj`, `v_proj`, `out_proj`, `se_fc.0`, `se_fc.2`."""

    feature: Tensor

    def __init__(self, channels: int, heads: int, grid: Grid, f: int = 2, r: int = 1, form: str = "sum") -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(channels, channels // f)
        self.k_proj = nn.Linear(channels, channels // f)
        self.v_proj = nn.Linear(channels, channels // f)
        self.out_proj = nn.Linear(channels // f, channels)
        self.se_fc = nn.Sequential(
            nn.Linear(channels, channels // r, bias=False),
            nn.ReLU(),
            nn.Linear(channels // r, channels, bias=False),
            nn.Sigmoid(),
        )
        self.register_buffer("feature", features(grid, form), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape

        def by_head(t: Tensor) -> Tensor:
            return t.view(batch, tokens, self.heads, -1).transpose(1, 2)

        def weighted(t: Tensor) -> Tensor:
            """Tokens times their four features, [B, H, N, 4E]."""
            feature = self.feature.to(t.dtype)
            return torch.cat([t * feature[:, n, None] for n in range(4)], dim=-1)

        q = weighted(F.relu(by_head(self.q_proj(x))))
        k = weighted(F.relu(by_head(self.k_proj(x))))
        v = by_head(self.v_proj(x))
        memory = guard(k.transpose(-2, -1) @ v)
        total = k.sum(dim=2)
        norm = guard(1 / ((q @ total[..., None]) + 1e-4))
        y = guard(guard(q @ memory) * norm)
        out = guard(self.out_proj(y.transpose(1, 2).flatten(2)))
        gate = self.se_fc(x.mean(dim=1, keepdim=True))
        return guard(out + out * gate)
