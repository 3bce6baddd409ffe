"""Self-attention with a learned two-dimensional prior (SP-ViT).

    prior[h,i,j] = b2[h] + sum_m w2[hD+m] relu(w1.weight[hD+m,0] dx(i,j) + w1.weight[hD+m,1] dy(i,j) + w1.bias[hD+m])
    score[h,i,j] = prior[h,i,j] (q[h,i] . k[h,j]) / sqrt(D)

Forms: "authors" runs the small perceptron for every pair of tokens, through a tensor of N x N x C; "table" runs it once for each of
the (2Gy-1)(2Gx-1) offsets and gathers; "flex" reads that table in FlexAttention's score function (forwards only on CPUs).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

from .layers import Grid, grid_offsets

FORMS = ("authors", "table", "flex")


@torch.library.custom_op("foveate_bench::written", mutates_args=())
def written(t: Tensor) -> Tensor:
    """A copy that the compiler cannot look into: FlexAttention's score function can read tensors that are in memory, and no others."""
    return t.clone()


@written.register_fake
def _(t: Tensor) -> Tensor:
    return torch.empty_like(t)


class SpatialPriorAttention(nn.Module):
    """`SpatialPriorAttention` of specs/attention/sp_sa.fov: parameters `qk`, `v`, `w1`, `w2`, `b2`, `proj`."""

    offsets: Tensor
    index: Tensor

    def __init__(self, channels: int, heads: int, grid: Grid, qkv_bias: bool = False, form: str = "authors") -> None:
        super().__init__()
        self.heads, self.grid, self.form = heads, grid, form
        self.qk = nn.Linear(channels, 2 * channels, bias=qkv_bias)
        self.v = nn.Linear(channels, channels, bias=qkv_bias)
        self.w1 = nn.Linear(2, channels)
        self.w2 = nn.Parameter(torch.zeros(channels, 1))
        self.b2 = nn.Parameter(torch.ones(heads))
        self.proj = nn.Linear(channels, channels)
        rows, columns = grid
        between = grid_offsets(grid)
        index = (between[..., 1] + rows - 1) * (2 * columns - 1) + between[..., 0] + columns - 1
        if form == "authors":
            offsets = between
        else:
            dy, dx = torch.meshgrid(torch.arange(1 - rows, rows), torch.arange(1 - columns, columns), indexing="ij")
            offsets = torch.stack([dx, dy], dim=-1).reshape(-1, 2).float()
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("index", index.long().flatten(), persistent=False)

    def prior_of_pairs(self) -> Tensor:
        """The prior [H, N, N], from the hidden layer of all pairs, [N, N, C]."""
        hidden = F.relu(self.w1(self.offsets))
        by_head = hidden.unflatten(-1, (self.heads, -1)).permute(2, 0, 1, 3)
        weight = self.w2.view(self.heads, 1, -1, 1)
        return (by_head @ weight).squeeze(-1) + self.b2[:, None, None]

    def prior_of_offsets(self) -> Tensor:
        """The prior [H, (2Gy-1)(2Gx-1)], one value an offset."""
        hidden = F.relu(self.w1(self.offsets)).unflatten(-1, (self.heads, -1))
        return torch.einsum("rhd,hd->hr", hidden, self.w2.view(self.heads, -1)) + self.b2[:, None]

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        depth = channels // self.heads
        q, k = self.qk(x).reshape(batch, tokens, 2, self.heads, depth).permute(2, 0, 3, 1, 4).unbind(0)
        v = self.v(x).reshape(batch, tokens, self.heads, depth).transpose(1, 2)
        if self.form == "flex":
            y = self.flex(q, k, v)
        else:
            if self.form == "authors":
                prior = self.prior_of_pairs()
            else:
                prior = self.prior_of_offsets().index_select(1, self.index).view(self.heads, tokens, tokens)
            score = prior * (q @ k.transpose(-2, -1)) * depth**-0.5
            y = score.softmax(dim=-1) @ v
        return self.proj(y.transpose(1, 2).flatten(2))

    def flex(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention [B, H, N, D] by FlexAttention."""
        table = written(self.prior_of_offsets())
        rows, columns = self.grid

        def times_prior(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            dy = j // columns - i // columns + rows - 1
            dx = j % columns - i % columns + columns - 1
            return score * table[h, dy * (2 * columns - 1) + dx]

        return flex_attention(q, k, v, score_mod=times_prior)
