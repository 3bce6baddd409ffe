"""Plain multi-head self-attention, with the fused projection of DeiT and with the split one of SimViT's last stage.

Forms: "plain" writes all scores, as the models' authors do; "sdpa" calls `scaled_dot_product_attention`; "flex" calls FlexAttention,
which on CPUs runs forwards only, and only compiled.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

FORMS = ("plain", "sdpa", "flex")


def attend(q: Tensor, k: Tensor, v: Tensor, form: str) -> Tensor:
    """softmax(q k^T / sqrt(D)) v of [B, H, N, D], as tokens [B, N, H * D]."""
    scale = q.shape[-1] ** -0.5
    if form == "plain":
        y = ((q @ k.transpose(-2, -1)) * scale).softmax(dim=-1) @ v
    elif form == "sdpa":
        y = F.scaled_dot_product_attention(q, k, v)
    else:
        y = flex_attention(q, k, v)
    return y.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """`SelfAttention` of specs/attention/full.fov: parameters `qkv`, `proj`."""

    def __init__(self, channels: int, heads: int, qkv_bias: bool = True, form: str = "plain") -> None:
        super().__init__()
        self.heads, self.form = heads, form
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, [B, H, N, D] each."""
        batch, tokens, channels = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(attend(*self.project(x), self.form))

    def with_class_row(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The result, and the first token's scaled scores against all others before the softmax, [B, H, N - 1]."""
        q, k, v = self.project(x)
        scale = q.shape[-1] ** -0.5
        if self.form == "plain":
            score = (q @ k.transpose(-2, -1)) * scale
            y = (score.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
            row = score[:, :, 0, 1:]
        else:
            y = attend(q, k, v, self.form)
            row = ((q[:, :, :1] @ k[:, :, 1:].transpose(-2, -1)) * scale).squeeze(2)
        return self.proj(y), row


class SplitAttention(nn.Module):
    """`SplitAttention` of specs/models/simvit.fov: parameters `q`, `kv`, `proj`."""

    def __init__(self, channels: int, heads: int, form: str = "plain") -> None:
        super().__init__()
        self.heads, self.form = heads, form
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        q = self.q(x).reshape(batch, tokens, self.heads, channels // self.heads).transpose(1, 2)
        kv = self.kv(x).reshape(batch, tokens, 2, self.heads, channels // self.heads)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(attend(q, k, v, self.form))
