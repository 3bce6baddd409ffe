"""Layers that several of the models share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Grid = tuple[int, int]


def to_image(tokens: Tensor, grid: Grid) -> Tensor:
    """Row-major tokens [B, Gy * Gx, C] as an image [B, C, Gy, Gx]."""
    batch, _, channels = tokens.shape
    return tokens.transpose(1, 2).reshape(batch, channels, *grid)


def to_tokens(image: Tensor) -> Tensor:
    """An image [B, C, Gy, Gx] as row-major tokens [B, Gy * Gx, C]."""
    return image.flatten(2).transpose(1, 2)


class Mlp(nn.Module):
    """The perceptron of a transformer block: `fc1`, GELU (exact), `fc2`."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class DepthwiseConv(nn.Module):
    """A depthwise 3 x 3 convolution of tokens on a grid; its parameters are `dwconv.weight` and `dwconv.bias`."""

    def __init__(self, channels: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return to_tokens(self.dwconv(to_image(x, self.grid)))


class ConvMlp(nn.Module):
    """The perceptron of SimViT and VVT: `fc1`, a depthwise 3 x 3 convolution over the grid, GELU (exact), `fc2`."""

    def __init__(self, channels: int, hidden: int, grid: Grid) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.dwconv = DepthwiseConv(hidden, grid)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.dwconv(self.fc1(x))))


class PatchEmbed(nn.Module):
    """A strided convolution, then a layer norm over the channels: [B, I, Y, X] to tokens [B, N, O]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int = 0) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(to_tokens(self.proj(image)))


def grid_offsets(grid: Grid) -> Tensor:
    """Offsets (column, row) from every token to every token, as float32 [N, N, 2]."""
    rows, columns = grid
    index = torch.arange(rows * columns)
    row, column = index // columns, index % columns
    dx = column[None, :] - column[:, None]
    dy = row[None, :] - row[:, None]
    return torch.stack([dx, dy], dim=-1).float()
