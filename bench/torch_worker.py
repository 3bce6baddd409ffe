"""PyTorch's side, one variant of one row in a process of its own. Run by bench/run.py.

It speaks JSON, a line a message, on standard output: first how it started (compile time, errors against the reference), then for every
number of seconds read from standard input the milliseconds of each run. Everything else that PyTorch prints goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import torch
from safetensors.torch import load_file
from torch import Tensor

from rows import BY_KEY, COMPILE, EAGER, FREEZE, OUTPUT_BOUND, Row
from subjects import Subject, build, initialise, make_inputs

LEAST = 5
"""Runs that are measured at least, as in `foveate bench`."""
WARM = 2
"""Runs before that."""
FLOOR = 1e-7
"""Share of the norm of all gradients by which one may differ in any case, as in `foveate verify`."""

Tensors = dict[str, Tensor]


class Work:
    """A subject with its inputs, ready to run as its row says."""

    def __init__(self, row: Row, form: str, mode: str, tensors: Tensors | None) -> None:
        self.row, self.mode = row, mode
        self.subject: Subject = build(row, form)
        if tensors is None:
            random = torch.Generator().manual_seed(1)
            initialise(self.subject.net, random)
            given = make_inputs(row, random)
        else:
            self.subject.net.load_state_dict(select(tensors, "param/"), strict=False)
            given = select(tensors, "input/")
        self.inputs = [given[name] for name in self.subject.inputs]
        self.cotangent: Tensor | None = None
        if self.subject.outputs == ("y",) and row.part != "inference":
            self.cotangent = tensors["cotangent/y"] if tensors else torch.randn_like(self.inputs[0])
        self.subject.whole.train(row.part != "inference")
        if row.part == "gradients":
            self.inputs[0].requires_grad_()
        self.parameters = list(self.subject.net.parameters())
        self.run = self.subject.whole if mode == EAGER else compiled(self.subject, mode)
        self.optimizer: torch.optim.Optimizer | None = None

    def forward(self) -> tuple[Tensor, ...]:
        return self.subject.call(self.inputs, self.run)

    def backward(self) -> tuple[Tensor, ...]:
        """Outputs; the gradients are left in the parameters and, for modules, in the input."""
        for leaf in (*self.parameters, *self.inputs):
            leaf.grad = None
        outputs = self.forward()
        outputs[-1].backward(self.cotangent)
        return outputs

    def step(self) -> tuple[Tensor, ...]:
        outputs = self.backward()
        assert self.optimizer is not None
        self.optimizer.step()
        return outputs

    def once(self) -> tuple[Tensor, ...]:
        """One run of what is measured."""
        if self.row.part == "inference":
            with torch.inference_mode():
                return self.forward()
        return self.backward() if self.row.part == "gradients" else self.step()

    def first(self) -> tuple[Tensor, ...]:
        """Like `once`, before any update of the parameters."""
        return self.backward() if self.row.part == "step" else self.once()

    def choose_optimizer(self) -> str:
        """Takes the faster of PyTorch's two AdamW implementations; gives its name."""
        best, name = float("inf"), ""
        for kind in ("fused", "foreach"):
            optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=0.05, fused=kind == "fused", foreach=kind == "foreach")
            optimizer.step()
            seconds = min(timed(optimizer.step) for _ in range(5))
            if seconds < best:
                best, name, self.optimizer = seconds, kind, optimizer
        return name


def compiled(subject: Subject, mode: str) -> Callable[..., object]:
    """The module through torch.compile with its default settings, or with constants folded."""
    return torch.compile(subject.whole, options={"freezing": True} if mode == FREEZE else None)


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def select(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors of a kind, without the prefix."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def errors(work: Work, outputs: tuple[Tensor, ...], tensors: Tensors) -> dict[str, float | bool]:
    """The largest relative L2 errors of outputs and gradients, the latter beyond the floor, and whether all are within their bounds."""

    def distance(got: Tensor, expected: Tensor) -> tuple[float, float]:
        expected = expected.double()
        difference = got.detach().double().reshape(expected.shape) - expected
        return float(difference.norm()), float(expected.norm())

    worst, ok = {"output": 0.0, "gradient": 0.0}, True
    suffix = "_eval" if work.row.part == "inference" else ""
    for name, got in zip(work.subject.outputs, outputs, strict=True):
        away, size = distance(got, tensors[f"output/{name}{suffix}"])
        error = away / size
        worst["output"] = max(worst["output"], error)
        # Written so that what is not a number fails.
        ok = ok and error <= OUTPUT_BOUND
    expected = select(tensors, "grad/")
    if expected:
        total = float(torch.cat([g.double().flatten() for g in expected.values()]).norm())
        leaves = dict(work.subject.net.named_parameters()) | dict(zip(work.subject.inputs, work.inputs, strict=True))
        for name, gradient in expected.items():
            found = leaves[name].grad
            away, size = distance(torch.zeros_like(gradient) if found is None else found, gradient)
            beyond = away - FLOOR * total
            worst["gradient"] = max(worst["gradient"], beyond / size if size > 0 else beyond)
            ok = ok and away <= work.row.bound(name) * size + FLOOR * total
    return {**worst, "ok": ok}


def measure(work: Work, seconds: float) -> list[float]:
    """Milliseconds of runs over so many seconds."""
    for _ in range(WARM):
        work.once()
    runs: list[float] = []
    clock = time.perf_counter()
    while len(runs) < LEAST or time.perf_counter() - clock < seconds:
        runs.append(1e3 * timed(work.once))
    return runs


def serve(arguments: argparse.Namespace, out: TextIO) -> None:
    def say(message: dict) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    tensors = load_file(arguments.file) if arguments.file else None
    work = Work(BY_KEY[arguments.row], arguments.form, arguments.mode, tensors)
    begin = time.perf_counter()
    outputs = work.first()
    start: dict = {"first_s": time.perf_counter() - begin, "errors": errors(work, outputs, tensors) if tensors else None}
    del tensors, outputs
    if work.row.part == "step":
        start["optimizer"] = work.choose_optimizer()
    work.once()
    say(start)
    for line in sys.stdin:
        say({"runs": measure(work, float(line))})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--row", required=True, choices=BY_KEY)
    parser.add_argument("--form", required=True)
    parser.add_argument("--mode", required=True, choices=(EAGER, COMPILE, FREEZE))
    parser.add_argument("--file", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # What libraries print must not get between the messages.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(arguments, out)


if __name__ == "__main__":
    main()
