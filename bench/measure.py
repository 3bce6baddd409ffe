"""Measures rows: both sides alternately, several rounds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from machine import Others
from rows import EAGER, Row, Variant
from sides import Agreement, Foveate, SideError, Torch, Worker

Say = Callable[[str], None]

BUSY = 0.03
"""Share of the processors that other programs may take before a measurement is doubtful."""


@dataclass
class Times:
    """Milliseconds of runs, by round."""

    rounds: list[list[float]] = field(default_factory=list)

    def at(self, share: float) -> float:
        """The value that this share of all runs do not exceed."""
        runs = sorted(run for part in self.rounds for run in part)
        return runs[round((len(runs) - 1) * share)]

    @property
    def median(self) -> float:
        return self.at(0.5)

    def medians(self) -> list[float]:
        """The median of every round."""
        return [Times([part]).median for part in self.rounds]


@dataclass
class VariantResult:
    """What one variant of PyTorch did."""

    variant: Variant
    times: Times = field(default_factory=Times)
    first_s: float = 0.0
    """Seconds of the first run: of compilation, if it is compiled."""
    optimizer: str | None = None
    agreement: Agreement | None = None
    failure: str = ""

    @property
    def usable(self) -> bool:
        """Whether it ran and gave the right numbers."""
        return not self.failure and self.agreement is not None and self.agreement.ok and bool(self.times.rounds)


@dataclass
class RowResult:
    """What a row gave."""

    row: Row
    product_flops: float = 0.0
    times: Times = field(default_factory=Times)
    foveate: dict = field(default_factory=dict)
    """The last measurement that `foveate bench` wrote."""
    agreement: Agreement | None = None
    variants: list[VariantResult] = field(default_factory=list)
    others: float = 0.0
    """Share of the processors that other programs took meanwhile."""
    failure: str = ""
    """Why there is nothing to report."""

    def best(self, rewritten: bool) -> VariantResult | None:
        """The fastest usable variant: of the authors' formulation, or of what goes beyond it."""
        usable = [v for v in self.variants if v.usable and v.variant.rewritten == rewritten]
        return min(usable, key=lambda v: v.times.median, default=None)

    def fastest(self, mode: str) -> VariantResult | None:
        """The fastest usable variant of the authors' formulation in a mode."""
        usable = [v for v in self.variants if v.usable and not v.variant.rewritten and v.variant.mode == mode]
        return min(usable, key=lambda v: v.times.median, default=None)

    def ratio(self, other: VariantResult | None) -> float | None:
        """How many times longer PyTorch takes, of medians."""
        return other.times.median / self.times.median if other and self.times.rounds else None

    def ratios(self, other: VariantResult) -> list[float]:
        """The same, round by round."""
        return [theirs / ours for theirs, ours in zip(other.times.medians(), self.times.medians(), strict=True)]

    @property
    def disagrees(self) -> bool:
        """Whether the numbers of the sides differ."""
        agreements = [self.agreement, *(v.agreement for v in self.variants)]
        return any(a is not None and not a.ok for a in agreements)

    @property
    def ok(self) -> bool:
        """Whether all that is ours worked. A variant of PyTorch that fails is only reported."""
        return not self.failure and not self.disagrees


@dataclass(frozen=True)
class Budget:
    """How long to measure."""

    rounds: int
    seconds: float
    compile: bool = True
    rewritten: bool = True

    def wanted(self, variants: tuple[Variant, ...]) -> list[Variant]:
        return [v for v in variants if (self.compile or v.mode == EAGER) and (self.rewritten or not v.rewritten)]


def measure_row(row: Row, foveate: Foveate, torch: Torch, budget: Budget, say: Say) -> RowResult:
    """Prepares, checks and measures a row. Failures are in the result."""
    result = RowResult(row)
    file = torch.scratch / f"{row.key}.safetensors"
    try:
        result.product_flops = torch.prepare(row, file)["product_flops"]
        result.agreement = foveate.verify(row, file)
        say(f"  foveate: {describe(result.agreement)}")
        with ExitStack() as stack:
            workers = start_workers(stack, result, torch, file, budget, say)
            others = Others([worker.process.pid for _, worker in workers])
            for n in range(budget.rounds):
                measure_round(n, result, workers, foveate, file, budget.seconds)
            result.others = others.share()
            if result.others > BUSY:
                say(f"  other programs took {100 * result.others:.0f} % of the processors: the times are not to be trusted")
    except SideError as error:
        result.failure = str(error)
        say(f"  FAILED: {error}")
    finally:
        file.unlink(missing_ok=True)
    return result


def start_workers(stack: ExitStack, result: RowResult, torch: Torch, file: Path, budget: Budget, say: Say) -> list[tuple[VariantResult, Worker]]:
    """A process for every variant that starts and agrees."""
    workers = []
    for variant in budget.wanted(result.row.variants):
        found = VariantResult(variant)
        result.variants.append(found)
        try:
            worker = stack.enter_context(torch.worker(result.row, variant, file))
        except SideError as error:
            found.failure = str(error)
            say(f"  {variant.name}: failed: {error}")
            continue
        found.first_s, found.optimizer = worker.first_s, worker.optimizer
        assert worker.agreement is not None
        found.agreement = worker.agreement
        say(f"  {variant.name}: {describe(found.agreement)}, first run {worker.first_s:.1f} s")
        workers.append((found, worker))
    return workers


def measure_round(n: int, result: RowResult, workers: list[tuple[VariantResult, Worker]], foveate: Foveate, file: Path, seconds: float) -> None:
    """One round: each side for so many seconds. Every other round goes through the sides backwards."""

    sides: list[tuple[VariantResult, Worker] | None] = [None, *workers]
    for side in reversed(sides) if n % 2 else sides:
        if side is None:
            result.foveate = foveate.bench(result.row, seconds, file)
            result.times.rounds.append(result.foveate["runs"])
            continue
        found, worker = side
        if found.failure:
            continue
        try:
            found.times.rounds.append(worker.measure(seconds))
        except SideError as error:
            found.failure = str(error)


def describe(agreement: Agreement) -> str:
    """Errors in words."""
    verdict = "" if agreement.ok else " DISAGREES"
    gradients = f", {agreement.gradient:.1e} of gradients" if agreement.gradient else ""
    return f"relative errors {agreement.output:.1e} of outputs{gradients}{verdict}"
