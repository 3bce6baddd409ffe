"""Peak memory of the training steps, each side in fresh processes.

A side's figure is the peak of the whole process above its parameters, gradients and optimiser moments. For PyTorch there is a second
figure, without what a process holds after nothing but `import torch`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from measure import Budget, Say
from rows import COMPILE, MEMORY_TARGET, Row, Variant
from sides import Foveate, SideError, Torch


@dataclass(frozen=True)
class Peak:
    """Bytes above parameters, gradients and moments."""

    above: int
    """All of the process."""
    less_import: int
    """Without what importing PyTorch takes."""


@dataclass
class MemoryResult:
    """Peaks of a row on both sides."""

    row: Row
    foveate: Peak | None = None
    buffers: int = 0
    """What Foveate allocated for tensors, parameters and their like included."""
    state: int = 0
    """Parameters, gradients and moments."""
    torch: dict[str, Peak] = field(default_factory=dict)
    """By the variant's name."""
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.foveate is not None

    def least(self, rewritten: bool) -> tuple[str, Peak] | None:
        """The variant of PyTorch that takes least, of the authors' formulation or of the others."""
        names = [v.name for v in self.row.variants if v.rewritten == rewritten and v.name in self.torch]
        return min(((n, self.torch[n]) for n in names), key=lambda pair: pair[1].above, default=None)

    def share(self, less_import: bool = False) -> float | None:
        """Foveate's peak over the least of the authors' formulation."""
        least = self.least(False)
        if self.foveate is None or least is None:
            return None
        return self.foveate.above / (least[1].less_import if less_import else least[1].above)

    @property
    def met(self) -> bool | None:
        share = self.share()
        return None if share is None else share <= MEMORY_TARGET


def peak_of(torch: Torch, row: Row, variant: Variant) -> Peak:
    """Of a compiled variant the memory of the runs alone, without that of the compilation before them."""
    found = torch.peak(row, variant)
    above = found["stepping" if variant.mode == COMPILE else "peak"] - found["state"]
    return Peak(above, above - found["import"])


def measure_memory(row: Row, foveate: Foveate, torch: Torch, budget: Budget, say: Say) -> MemoryResult:
    """Peaks of both sides; failures are in the result."""
    result = MemoryResult(row)
    try:
        found = foveate.bench(row, 0.0, None)
        result.state, result.buffers = found["state_bytes"], found["device_bytes"]
        above = found["peak_bytes"] - found["state_bytes"]
        result.foveate = Peak(above, above)
        say(f"  foveate: {above / 1e6:.0f} MB")
    except SideError as error:
        result.failures["foveate"] = str(error)
        say(f"  FAILED: {error}")
    for variant in budget.wanted(row.variants):
        try:
            peak = result.torch[variant.name] = peak_of(torch, row, variant)
            say(f"  {variant.name}: {peak.above / 1e6:.0f} MB, {peak.less_import / 1e6:.0f} MB without the import")
        except SideError as error:
            result.failures[variant.name] = str(error)
            say(f"  {variant.name}: failed: {error}")
    return result
