"""The spatial entropy of attention maps (SAR).

Of a map s over the patches: mask = s > mean(s); its connected components, 8-neighbourhood; a = relu(s - mean(s)) + 1e-9; the share of
each component in the mass of a over the mask; the entropy of these shares. No gradient flows through the mask or the components.

Forms: "maps" handles one map after another, with OpenCV's connected components on the host, as the authors do; "mosaic" has OpenCV
label all maps in one image, with an empty row between them, and computes the rest in one batch.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Grid

FORMS = ("maps", "mosaic")
TINY = 1e-9


@torch.compiler.disable
def label(mask: Tensor) -> tuple[Tensor, int]:
    """Connected components of a mask [Y, X]: labels (0 outside of it), and how many there are with label 0."""
    count, labels = cv2.connectedComponents(mask.cpu().numpy().astype(np.uint8), connectivity=8)
    return torch.from_numpy(labels).to(mask.device).long(), count


def entropy_of_map(score: Tensor, grid: Grid) -> Tensor:
    """The spatial entropy of one map of scores, [N]."""
    above = score - score.mean()
    labels, count = label((above.detach() > 0).view(grid))
    excess = F.relu(above) + TINY
    mass = excess.new_zeros(count).index_add(0, labels.flatten(), excess)[1:]
    share = mass / mass.sum().clamp(min=TINY)
    return -(share * share.log()).sum()


def entropy_of_maps(score: Tensor, grid: Grid) -> Tensor:
    """The mean spatial entropy of maps [M, N]."""
    maps, _ = score.shape
    above = score - score.mean(dim=-1, keepdim=True)
    mask = (above.detach() > 0).view(maps, *grid)
    labels, count = label(F.pad(mask, (0, 0, 0, 1)).flatten(0, 1))
    labels = labels.view(maps, grid[0] + 1, grid[1])[:, :-1].flatten(1)
    excess = F.relu(above) + TINY
    mass = excess.new_zeros(count).index_add(0, labels.flatten(), excess.flatten())
    total = (excess * mask.flatten(1)).sum(dim=-1).clamp(min=TINY)
    # Every component belongs to one map: its share is its mass over the total of the map of any of its places.
    owner = torch.zeros(count, dtype=torch.long, device=score.device)
    owner[labels.flatten()] = torch.arange(maps, device=score.device).repeat_interleave(labels.shape[1])
    share = mass[1:] / total[owner[1:]]
    return -(share * share.log()).sum() / maps


class SpatialEntropy(nn.Module):
    """`SpatialEntropy` of specs/losses/spatial_entropy.fov, of scores [B, H, Gy * Gx]."""

    def __init__(self, grid: Grid, form: str = "maps") -> None:
        super().__init__()
        self.grid, self.form = grid, form

    def forward(self, score: Tensor) -> Tensor:
        maps = score.flatten(0, 1)
        if self.form == "maps":
            return torch.stack([entropy_of_map(m, self.grid) for m in maps]).mean()
        return entropy_of_maps(maps, self.grid)
