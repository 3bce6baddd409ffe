"""DeiT with SAR's last block, which has no skip connection around its attention and no second norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Mlp, to_tokens
from .self_attention import SelfAttention

FORMS = ("authors", "rewritten")


class PatchEmbed(nn.Module):
    """Patches by a convolution of kernel and stride `patch`: [B, 3, Y, X] to tokens [B, N, C]."""

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, patch, stride=patch)

    def forward(self, image: Tensor) -> Tensor:
        return to_tokens(self.proj(image))


class Block(nn.Module):
    """A block of DeiT."""

    def __init__(self, channels: int, heads: int, ratio: int, form: str) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = SelfAttention(channels, heads, form="plain" if form == "authors" else "sdpa")
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = Mlp(channels, ratio * channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class LastBlock(nn.Module):
    """SAR's last block. Gives the class token's row of scores too."""

    def __init__(self, channels: int, heads: int, ratio: int, form: str) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = SelfAttention(channels, heads, form="plain" if form == "authors" else "sdpa")
        self.mlp = Mlp(channels, ratio * channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, row = self.attn.with_class_row(self.norm1(x))
        return y + self.mlp(y), row


class DeitSar(nn.Module):
    """`DeitSar` of specs/models/deit_sar.fov; the defaults are those of DeitSarTiny. Gives logits and the class row [B, H, patches]."""

    def __init__(
        self,
        image: int = 224,
        classes: int = 1000,
        channels: int = 192,
        depth: int = 12,
        heads: int = 3,
        mlp_ratio: int = 4,
        patch: int = 16,
        form: str = "authors",
    ) -> None:
        super().__init__()
        self.grid = (image // patch,) * 2
        self.patch_embed = PatchEmbed(channels, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1] + 1, channels))
        blocks: list[nn.Module] = [Block(channels, heads, mlp_ratio, form) for _ in range(depth - 1)]
        self.blocks = nn.ModuleList([*blocks, LastBlock(channels, heads, mlp_ratio, form)])
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.head = nn.Linear(channels, classes)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.patch_embed(image)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks[:-1]:
            x = block(x)
        x, row = self.blocks[-1](x)
        return self.head(self.norm(x)[:, 0]), row
