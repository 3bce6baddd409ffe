"""Writes the tensors that both sides of a row work on, with what PyTorch computes from them in float64. Run by bench/run.py.

The file has the layout that `foveate verify` and `foveate bench --against` read: `input/*`, `param/*`, `cotangent/*`, `output/*`,
`grad/*`. Outputs and gradients are those of the authors' formulation in float64, rounded to float32, so that the errors of both
sides' float32 show. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import zlib
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rows import BY_KEY, Row
from subjects import build, initialise, make_inputs


def prepare(row: Row) -> tuple[dict[str, Tensor], float]:
    """The tensors of a row, and the floating-point operations of its matrix products and convolutions in the leanest form."""
    random = torch.Generator().manual_seed(zlib.crc32(row.key.encode()))
    subject = build(row, row.variants[0].form)
    initialise(subject.net, random)
    inputs = make_inputs(row, random)
    tensors = {f"input/{name}": value for name, value in inputs.items()}
    tensors |= {f"param/{name}": value.float() for name, value in subject.parameters().items()}
    training = row.part != "inference"
    values = [inputs[name] for name in subject.inputs]
    cotangent = torch.randn(values[0].shape, generator=random) if subject.outputs == ("y",) and training else None
    if cotangent is not None:
        tensors["cotangent/y"] = cotangent

    flops = products(row, tensors, cotangent)

    subject.whole.double().train(training)
    values = [v.double() if v.is_floating_point() else v for v in values]
    block = row.part == "gradients"
    values[0].requires_grad_(block)
    if not training:
        with torch.no_grad():
            results = subject.call(values)
        tensors |= {f"output/{n}_eval": v for n, v in zip(subject.outputs, results, strict=True)}
    else:
        results = subject.call(values)
        results[-1].backward(None if cotangent is None else cotangent.double())
        tensors |= {f"output/{n}": v.detach() for n, v in zip(subject.outputs, results, strict=True)}
        leaves: dict[str, Tensor] = dict(subject.net.named_parameters())
        if block:
            leaves[subject.inputs[0]] = values[0]
        for name, leaf in leaves.items():
            tensors[f"grad/{name}"] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return {k: stored(v) for k, v in tensors.items()}, flops


def products(row: Row, tensors: dict[str, Tensor], cotangent: Tensor | None) -> float:
    """Counts what PyTorch's own counter counts: matrix products and convolutions, forwards and, in training, backwards."""
    forms = [v.form for v in row.variants if v.form not in ("flex", "sdpa")]
    subject = build(row, forms[-1])
    subject.net.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("param/")}, strict=False)
    subject.whole.train(row.part != "inference")
    values = [tensors[f"input/{name}"] for name in subject.inputs]
    if row.part == "gradients":
        values[0] = values[0].clone().requires_grad_()
    mapping = {torch.ops.aten.convolution_backward: convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter, torch.set_grad_enabled(row.part != "inference"):
        results = subject.call(values)
        if row.part != "inference":
            results[-1].backward(cotangent)
    return float(counter.get_total_flops())


def convolution_backward(gradient: list[int], x: list[int], weight: list[int], *arguments: Any, **_: object) -> int:
    """Floating-point operations of a convolution's gradients, from shapes; PyTorch 2.15's own formula forgets groups."""
    wanted = arguments[-1]
    return 2 * prod(gradient) * prod(weight[1:]) * (int(wanted[0]) + int(wanted[1]))


def stored(value: Tensor) -> Tensor:
    """As it is written: whole numbers as they are, others as float32, at least one dimension."""
    value = value.detach()
    value = value.float() if value.is_floating_point() else value
    return value.reshape(1).clone() if value.dim() == 0 else value.contiguous().clone()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--row", required=True, choices=BY_KEY)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tensors, flops = prepare(BY_KEY[arguments.row])
    save_file(tensors, arguments.file)
    print(json.dumps({"product_flops": flops}))


if __name__ == "__main__":
    main()
