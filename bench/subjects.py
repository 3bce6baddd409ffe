"""What is run on PyTorch's side: a module with its objective, and the values of its inputs and parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.central import CentralAttention
from reference.deit_sar import DeitSar
from reference.entropy import SpatialEntropy
from reference.self_attention import SelfAttention
from reference.simvit import SimVit
from reference.sp_vit import SpVit
from reference.spatial_prior import SpatialPriorAttention
from reference.vicinity import VicinityAttention
from reference.vvt import Vvt
from rows import Row

Grid = tuple[int, int]


class Classifier(nn.Module):
    """A network and the cross-entropy of its logits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.net(image)
        loss = F.cross_entropy(logits, target)
        return logits, loss, loss


class ClassifierWithEntropy(nn.Module):
    """SAR's objective: cross-entropy and 0.01 times the spatial entropy of the class row."""

    def __init__(self, net: DeitSar, form: str) -> None:
        super().__init__()
        self.net = net
        self.entropy = SpatialEntropy(net.grid, "maps" if form == "authors" else "mosaic")

    def forward(self, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        logits, row = self.net(image)
        cross_entropy = F.cross_entropy(logits, target)
        entropy = self.entropy(row)
        return logits, cross_entropy, entropy, cross_entropy + 0.01 * entropy


class First(nn.Module):
    """The first result of a network that gives several."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)[0]


@dataclass
class Subject:
    """A module as it is called, with the names of what goes in and comes out."""

    whole: nn.Module
    """What is called."""
    net: nn.Module
    """The part whose state dict has the names of the spec's parameters."""
    inputs: Sequence[str]
    outputs: Sequence[str]

    def call(self, inputs: Sequence[Tensor], run: Callable[..., object] | None = None) -> tuple[Tensor, ...]:
        """The outputs, in the order of their names; `run` may be a compiled form of `whole`."""
        out = (self.whole if run is None else run)(*inputs)
        return out if isinstance(out, tuple) else (out,)

    def parameters(self) -> dict[str, Tensor]:
        """Parameters and running statistics under the names of the spec."""
        return {k: v for k, v in self.net.state_dict().items() if not k.endswith("num_batches_tracked")}


def build(row: Row, form: str) -> Subject:
    """The subject of a row in one of its forms, with PyTorch's own initial values."""
    size = row.size
    grid = (size.get("grid", 0),) * 2
    model = MODELS.get(row.subject)
    if model is None:
        net = MODULES[row.subject](size, grid, form)
        return Subject(net, net, ("score",), ("loss",)) if row.subject == "entropy" else Subject(net, net, ("x",), ("y",))
    net = model(form)
    if row.part == "inference":
        whole = First(net) if isinstance(net, DeitSar) else net
        return Subject(whole, net, ("image",), ("logits",))
    if isinstance(net, DeitSar):
        outputs: tuple[str, ...] = ("logits", "cross_entropy", "spatial_entropy", "loss")
        return Subject(ClassifierWithEntropy(net, form), net, ("image", "target"), outputs)
    return Subject(Classifier(net), net, ("image", "target"), ("logits", "cross_entropy", "loss"))


MODULES: dict[str, Callable[[dict[str, int], Grid, str], nn.Module]] = {
    "self_attention": lambda s, grid, form: SelfAttention(s["channels"], s["heads"], form=form),
    "spatial_prior": lambda s, grid, form: SpatialPriorAttention(s["channels"], s["heads"], grid, form=form),
    "central": lambda s, grid, form: CentralAttention(s["channels"], s["heads"], grid, form=form),
    "vicinity": lambda s, grid, form: VicinityAttention(s["channels"], s["heads"], grid),
    "entropy": lambda s, grid, form: SpatialEntropy(grid, form),
}

MODELS: dict[str, Callable[[str], nn.Module]] = {
    "simvit_micro": lambda form: SimVit(form=form),
    "vvt_tiny": lambda form: Vvt(),
    "sp_vit_s": lambda form: SpVit(form=form),
    "deit_sar_tiny": lambda form: DeitSar(form=form),
}


def initialise(net: nn.Module, random: torch.Generator) -> None:
    """Gives every parameter random values at which nothing is trivial.

    Weights keep the size of what passes through them, biases and the scales of norms are random too. Two modules need more care. The
    spatial prior is 1 plus or minus about a half, with its hidden units bending inside the range of offsets. In vicinity attention
    queries and keys are small enough that the guards at 1e-4 and 1e4 leave nearly all intermediates alone, as in trained networks.
    """

    def normal(t: Tensor, std: float, mean: float = 0.0) -> None:
        t.copy_(mean + std * torch.randn(t.shape, generator=random, dtype=torch.float32))

    with torch.no_grad():
        for module in net.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if name == "weight" and isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
                    normal(parameter, 0.1, 1.0)
                elif name == "weight":
                    normal(parameter, 1 / math.sqrt(parameter[0].numel()))
                else:
                    normal(parameter, 0.1)
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                normal(module.running_mean, 0.1)
                module.running_var.copy_(1 + 0.5 * torch.rand(module.running_var.shape, generator=random))
            if isinstance(module, SpatialPriorAttention):
                normal(module.w1.weight, 0.15)
                normal(module.w1.bias, 0.5)
                normal(module.w2, 0.05)
                normal(module.b2, 0.1, 1.0)
            if isinstance(module, VicinityAttention):
                for small in (module.q_proj, module.k_proj):
                    normal(small.weight, 0.25 / math.sqrt(small.in_features))
                    normal(small.bias, 0.02)


def make_inputs(row: Row, random: torch.Generator) -> dict[str, Tensor]:
    """The inputs of a row; of models in training the targets too."""
    if row.subject in MODELS:
        inputs = {"image": torch.randn(row.batch, 3, 224, 224, generator=random)}
        if row.part != "inference":
            inputs["target"] = torch.randint(0, 1000, (row.batch,), generator=random)
        return inputs
    size = row.size
    tokens = size["grid"] ** 2
    if row.subject == "entropy":
        return {"score": smooth_maps(row.batch * size["heads"], size["grid"], random).view(row.batch, size["heads"], tokens)}
    return {"x": torch.randn(row.batch, tokens, size["channels"], generator=random)}


def smooth_maps(count: int, side: int, random: torch.Generator) -> Tensor:
    """Maps [count, side * side] with a few blobs each, as the attention of a class token has, and some noise."""
    coarse = torch.randn(count, 1, side // 2, side // 2, generator=random)
    smooth = F.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
    noise = torch.randn(count, 1, side, side, generator=random)
    return (smooth + 0.3 * noise).flatten(1)
