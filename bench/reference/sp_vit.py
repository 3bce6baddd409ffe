"""SP-ViT: a convolutional stem, blocks with a learned spatial prior among patches, then plain blocks with a class token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Grid, Mlp, to_image, to_tokens
from .self_attention import SelfAttention
from .spatial_prior import SpatialPriorAttention

FORMS = ("authors", "rewritten", "flex")


class ConvStem(nn.Module):
    """The stem "4_2": three convolutions with batch norm at half the side, then one with kernel and stride of half a patch."""

    def __init__(self, channels: int, patch: int, stem: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv2 = nn.Conv2d(stem, stem, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem)
        self.conv3 = nn.Conv2d(stem, stem, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(stem)
        self.proj = nn.Conv2d(stem, channels, patch // 2, stride=patch // 2)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(image)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return to_tokens(self.proj(x))


class PosBlock(nn.Module):
    """x + a depthwise 3 x 3 convolution of x, over the patches; the parameters are `proj.0.weight` and `proj.0.bias`."""

    def __init__(self, channels: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.proj = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + to_tokens(self.proj(to_image(x, self.grid)))


class Block(nn.Module):
    """Attention and a perceptron, each divided by `skip_lam` before it is added, and the convolution of the patches."""

    def __init__(self, channels: int, heads: int, grid: Grid, ratio: int, skip_lam: float, prior: bool, form: str) -> None:
        super().__init__()
        self.skip_lam, self.prior = skip_lam, prior
        self.norm1 = nn.LayerNorm(channels)
        self.attn: nn.Module
        if prior:
            name = {"authors": "authors", "rewritten": "table", "flex": "flex"}[form]
            self.attn = SpatialPriorAttention(channels, heads, grid, form=name)
        else:
            self.attn = SelfAttention(channels, heads, False, {"authors": "plain"}.get(form, "sdpa"))
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, ratio * channels)
        self.pos_block = PosBlock(channels, grid)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x)) / self.skip_lam
        x = x + self.mlp(self.norm2(x)) / self.skip_lam
        if self.prior:
            return self.pos_block(x)
        return torch.cat([x[:, :1], self.pos_block(x[:, 1:])], dim=1)


class SpVit(nn.Module):
    """`SpVit` of specs/models/sp_vit.fov without the dense head; the defaults are those of SP-ViT-S."""

    def __init__(
        self,
        image: int = 224,
        classes: int = 1000,
        channels: int = 384,
        depth: int = 16,
        heads: int = 6,
        mlp_ratio: int = 3,
        skip_lam: float = 2,
        patch: int = 16,
        sp_layers: int = 14,
        stem: int = 64,
        form: str = "authors",
    ) -> None:
        super().__init__()
        grid = (image // patch,) * 2
        self.sp_layers = sp_layers
        self.patch_embed = ConvStem(channels, patch, stem)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid[0] * grid[1], channels))
        self.blocks = nn.ModuleList(Block(channels, heads, grid, mlp_ratio, skip_lam, m < sp_layers, form) for m in range(depth))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image) + self.pos_embed
        for block in self.blocks[: self.sp_layers]:
            x = block(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        for block in self.blocks[self.sp_layers :]:
            x = block(x)
        return self.head(self.norm(x)[:, 0])
