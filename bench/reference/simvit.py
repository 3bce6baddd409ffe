"""SimViT: four stages, three of central self-attention and one of plain self-attention."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .central import CentralAttention
from .layers import ConvMlp, Grid, PatchEmbed, to_image
from .self_attention import SplitAttention

FORMS = ("authors", "rewritten")


class Block(nn.Module):
    """Attention, then a perceptron with a depthwise convolution, each behind a layer norm and added."""

    def __init__(self, channels: int, heads: int, grid: Grid, ratio: int, local: bool, form: str) -> None:
        super().__init__()
        plain = form == "authors"
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn: nn.Module
        if local:
            self.attn = CentralAttention(channels, heads, grid, form="unfold" if plain else "slices")
        else:
            self.attn = SplitAttention(channels, heads, form="plain" if plain else "sdpa")
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = ConvMlp(channels, ratio * channels, grid)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SimVit(nn.Module):
    """`SimVit` of specs/models/simvit.fov; the defaults are those of SimViT-Micro."""

    def __init__(
        self,
        image: int = 224,
        classes: int = 1000,
        dims: Sequence[int] = (32, 64, 160, 256),
        heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[int] = (8, 8, 4, 4),
        depths: Sequence[int] = (2, 3, 3, 2),
        form: str = "authors",
    ) -> None:
        super().__init__()
        self.grids: list[Grid] = [(image // 2 ** (s + 2),) * 2 for s in range(4)]
        for s, grid in enumerate(self.grids):
            stride = 4 if s == 0 else 2
            embed = PatchEmbed(3 if s == 0 else dims[s - 1], dims[s], stride, stride)
            blocks = [Block(dims[s], heads[s], grid, mlp_ratios[s], s < 3, form) for _ in range(depths[s])]
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
