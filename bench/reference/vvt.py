"""VVT: four stages of vicinity attention over overlapping patches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .layers import ConvMlp, Grid, PatchEmbed, to_image
from .vicinity import VicinityAttention

FORMS = ("authors",)


class Block(nn.Module):
    """Attention, then a perceptron with a depthwise convolution, each behind a layer norm and added."""

    def __init__(self, channels: int, heads: int, grid: Grid, ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = VicinityAttention(channels, heads, grid)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = ConvMlp(channels, ratio * channels, grid)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vvt(nn.Module):
    """`Vvt` of specs/models/vvt.fov; the defaults are those of VVT-Tiny."""

    def __init__(
        self,
        image: int = 224,
        classes: int = 1000,
        dims: Sequence[int] = (96, 160, 320, 512),
        heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[int] = (8, 8, 4, 4),
        depths: Sequence[int] = (2, 2, 2, 2),
    ) -> None:
        super().__init__()
        self.grids: list[Grid] = [(image // 2 ** (s + 2),) * 2 for s in range(4)]
        for s, grid in enumerate(self.grids):
            if s == 0:
                embed = PatchEmbed(3, dims[0], 7, 4, 3)
            else:
                embed = PatchEmbed(dims[s - 1], dims[s], 3, 2, 1)
            blocks = [Block(dims[s], heads[s], grid, mlp_ratios[s]) for _ in range(depths[s])]
            self.add_module(f"patch_embed{s + 1}", embed)
            self.add_module(f"block{s + 1}", nn.Sequential(*blocks))
            self.add_module(f"norm{s + 1}", nn.LayerNorm(dims[s], eps=1e-6))
        self.head = nn.Linear(dims[3], classes)

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for s, grid in enumerate(self.grids):
            tokens = getattr(self, f"block{s + 1}")(getattr(self, f"patch_embed{s + 1}")(x))
            tokens = getattr(self, f"norm{s + 1}")(tokens)
            x = to_image(tokens, grid) if s < 3 else tokens
        return self.head(x.mean(dim=1))
