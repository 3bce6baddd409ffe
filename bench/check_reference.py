"""Compares the PyTorch reference modules with the golden tensors, in float64.

The golden tensors come from the authors' released code (tests/golden/README.md), so this shows that what Foveate is compared with is
the published system. Prints a line a file; exits with 1 if a tensor differs by more than the golden files' rounding explains.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from reference.central import CentralAttention
from reference.deit_sar import DeitSar
from reference.entropy import SpatialEntropy
from reference.simvit import SimVit
from reference.sp_vit import SpVit
from reference.spatial_prior import SpatialPriorAttention
from reference.vicinity import VicinityAttention
from reference.vvt import Vvt
from subjects import Classifier, ClassifierWithEntropy, Subject

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
BOUND = 1e-6
"""Relative L2 error of a tensor: the golden tensors were rounded to float32."""
FLOOR = 1e-7
"""Share of the norm of all gradients together by which one may differ in any case; some are exactly zero."""


def classifier(net: nn.Module) -> Subject:
    return Subject(Classifier(net), net, ("image", "target"), ("logits", "cross_entropy", "loss"))


def with_entropy(form: str) -> Subject:
    net = DeitSar(224, 10, 24, 2, 3, 2, form=form)
    whole = ClassifierWithEntropy(net, form)
    return Subject(whole, net, ("image", "target"), ("logits", "cross_entropy", "spatial_entropy", "loss"))


def block(net: nn.Module) -> Subject:
    return Subject(net, net, ("x",), ("y",))


def entropy(form: str) -> Subject:
    net = SpatialEntropy((14, 14), form)
    return Subject(net, net, ("score",), ("loss",))


DIMS = (16, 24, 32, 40)
CASES: dict[str, tuple[tuple[str, ...], Callable[[str], Subject]]] = {
    "ops/sp_sa_5x5": (("authors", "table"), lambda form: block(SpatialPriorAttention(24, 3, (5, 5), form=form))),
    "ops/sp_sa_14x14": (("authors", "table"), lambda form: block(SpatialPriorAttention(48, 6, (14, 14), True, form))),
    "ops/central_5x7_k3": (("unfold", "slices"), lambda form: block(CentralAttention(16, 2, (5, 7), 3, form))),
    "ops/central_6x6_k5": (("unfold", "slices"), lambda form: block(CentralAttention(16, 4, (6, 6), 5, form))),
    "ops/central_14x14_k3": (("unfold", "slices"), lambda form: block(CentralAttention(64, 2, (14, 14), 3, form))),
    "ops/vicinity_sum_4x6": (("sum",), lambda form: block(VicinityAttention(24, 2, (4, 6), form=form))),
    "ops/vicinity_prod_4x6": (("product",), lambda form: block(VicinityAttention(24, 2, (4, 6), form=form))),
    "ops/vicinity_sum_14x14": (("sum",), lambda form: block(VicinityAttention(64, 2, (14, 14), r=2, form=form))),
    "ops/spatial_entropy_noise": (("maps", "mosaic"), entropy),
    "ops/spatial_entropy_smooth": (("maps", "mosaic"), entropy),
    "models/tiny_simvit": (
        ("authors", "rewritten"),
        lambda form: classifier(SimVit(32, 10, DIMS, heads=(1, 2, 2, 4), mlp_ratios=(4, 4, 2, 2), depths=(1, 2, 1, 1), form=form)),
    ),
    "models/tiny_vvt": (
        ("authors",),
        lambda form: classifier(Vvt(32, 10, DIMS, heads=(1, 1, 2, 2), mlp_ratios=(4, 4, 2, 2), depths=(1, 1, 2, 1))),
    ),
    "models/tiny_spvit": (
        ("authors", "rewritten"),
        lambda form: classifier(SpVit(64, 10, 36, 3, 3, 3, 2, sp_layers=2, form=form)),
    ),
    "models/tiny_sar": (("authors", "rewritten"), with_entropy),
}


def compare(name: str, make: Callable[[str], Subject], form: str) -> float:
    """The largest error of a tensor of a golden file over its bound."""
    tensors = {k: v.double() if v.is_floating_point() else v for k, v in load_file(GOLDEN / f"{name}.safetensors").items()}
    part = {kind: {k.split("/", 1)[1]: v for k, v in tensors.items() if k.startswith(kind)} for kind in ("input", "param", "output", "cotangent", "grad")}
    subject = make(form)
    net = subject.net.double()
    subject.whole.double()
    known = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    if known.keys() != part["param"].keys():
        raise SystemExit(f"{name}: parameters differ: {sorted(known.keys() ^ part['param'].keys())}")
    net.load_state_dict(part["param"], strict=False)
    inputs = [part["input"][n] for n in subject.inputs]
    for tensor in inputs:
        tensor.requires_grad_(tensor.is_floating_point())
    subject.whole.eval()
    got: dict[str, Tensor] = {}
    with torch.no_grad():
        for key, value in zip(subject.outputs, subject.call(inputs), strict=True):
            got[f"{key}_eval"] = value
    subject.whole.train()
    results = dict(zip(subject.outputs, subject.call(inputs), strict=True))
    for key, value in results.items():
        got[key] = got[f"{key}_train"] = value.detach()
    if part["cotangent"]:
        results["y"].backward(part["cotangent"]["y"])
    else:
        results["loss"].backward()
    named = dict(net.named_parameters()) | dict(zip(subject.inputs, inputs, strict=True))
    worst = 0.0
    total = float(torch.cat([g.flatten() for g in part["grad"].values()]).norm())
    for key, expected in part["output"].items():
        worst = max(worst, float((got[key].reshape(expected.shape) - expected).norm() / (BOUND * expected.norm())))
    for key, expected in part["grad"].items():
        found = named[key].grad
        assert found is not None, key
        bound = BOUND * expected.norm() + FLOOR * total
        worst = max(worst, float((found.reshape(expected.shape) - expected).norm() / bound))
    return worst


def main() -> int:
    failed = 0
    for name, (forms, make) in CASES.items():
        for form in forms:
            worst = compare(name, make, form)
            failed += worst > 1
            print(f"{name:28} {form:10} {worst:8.3f} of the bound{'' if worst <= 1 else '   MISSES'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
