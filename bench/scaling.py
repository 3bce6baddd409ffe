"""How time and memory grow with the grid, at a constant number of tokens in all (batch times grid)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from machine import Others
from measure import Budget, Say, Times
from memory import Peak, peak_of
from rows import EAGER, SCALING_BOUND, Row, Variant
from sides import Foveate, SideError, Torch


@dataclass
class SizeResult:
    """One size."""

    row: Row
    times: Times = field(default_factory=Times)
    peak: Peak | None = None
    buffers: int = 0
    torch_times: dict[str, Times] = field(default_factory=dict)
    torch_peaks: dict[str, Peak] = field(default_factory=dict)


@dataclass
class ScalingResult:
    """A module at several sizes."""

    title: str
    sizes: list[SizeResult] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    others: float = 0.0
    """Share of the processors that other programs took while times were measured."""
    ok: bool = True

    def time_spread(self) -> float | None:
        """The longest of Foveate's medians over the shortest."""
        medians = [s.times.median for s in self.sizes if s.times.rounds]
        return max(medians) / min(medians) if len(medians) == len(self.sizes) and medians else None

    def memory_spread(self) -> float | None:
        """The largest of Foveate's peaks over the smallest: 1 if memory is linear in the number of tokens."""
        peaks = [s.peak.above for s in self.sizes if s.peak]
        return max(peaks) / min(peaks) if len(peaks) == len(self.sizes) and peaks else None

    @staticmethod
    def met(spread: float | None) -> bool | None:
        return None if spread is None else spread <= SCALING_BOUND


def measure_scaling(title: str, rows: tuple[Row, ...], timed: bool, foveate: Foveate, torch: Torch, budget: Budget, say: Say) -> ScalingResult:
    """Measures memory of all sizes, and times, alternating between sizes, if wanted. PyTorch stands beside it, eager."""
    result = ScalingResult(title)
    eager = [v for v in rows[0].variants if v.mode == EAGER]
    for row in rows:
        size = SizeResult(row)
        result.sizes.append(size)
        say(f"  {row.title}")
        try:
            found = foveate.bench(row, 0.0, None)
            above = found["peak_bytes"] - found["state_bytes"]
            size.peak, size.buffers = Peak(above, above), found["device_bytes"]
        except SideError as error:
            result.ok = False
            result.failures.append(f"{row.title}: {error}")
        for variant in eager:
            try:
                size.torch_peaks[variant.name] = peak_of(torch, row, variant)
            except SideError as error:
                result.failures.append(f"{row.title}, {variant.name}: {error}")
    if timed and result.ok:
        measure_times(result, eager, foveate, torch, budget)
    for failure in result.failures:
        say(f"  failed: {failure}")
    return result


def measure_times(result: ScalingResult, variants: list[Variant], foveate: Foveate, torch: Torch, budget: Budget) -> None:
    """Rounds over all sizes."""
    with ExitStack() as stack:
        workers = []
        for size in result.sizes:
            for variant in variants:
                try:
                    worker = stack.enter_context(torch.worker(size.row, variant, None))
                    workers.append((size, variant, worker))
                except SideError as error:
                    result.failures.append(f"{size.row.title}, {variant.name}: {error}")
        others = Others([worker.process.pid for _, _, worker in workers])
        for _ in range(budget.rounds):
            for size in result.sizes:
                try:
                    size.times.rounds.append(foveate.bench(size.row, budget.seconds, None)["runs"])
                except SideError as error:
                    result.ok = False
                    result.failures.append(f"{size.row.title}: {error}")
                    return
            for size, variant, worker in workers:
                try:
                    times = size.torch_times.setdefault(variant.name, Times())
                    times.rounds.append(worker.measure(budget.seconds))
                except SideError as error:
                    result.failures.append(f"{size.row.title}, {variant.name}: {error}")
        result.others = others.share()
