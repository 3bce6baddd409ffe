"""The tables, and the section of docs/benchmarks.md that holds them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from machine import Machine
from measure import BUSY, Budget, RowResult, Times, VariantResult
from memory import MemoryResult, Peak
from rows import COMPILE, EAGER, GRADIENT_BOUND, LOOSE_BOUND, MEMORY_TARGET, OUTPUT_BOUND
from scaling import ScalingResult

BEGIN, END = "<!-- pytorch: begin -->", "<!-- pytorch: end -->"
NONE = "-"


@dataclass
class Results:
    """All that was measured."""

    machine: Machine
    budget: Budget
    rows: list[RowResult] = field(default_factory=list)
    memory: list[MemoryResult] = field(default_factory=list)
    scaling: list[ScalingResult] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(part.ok for group in (self.rows, self.memory, self.scaling) for part in group)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join(['---', *['---:'] * (len(columns) - 1)])}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def ms(value: float) -> str:
    """Milliseconds with three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(times: Times) -> str:
    """The median with the quartiles."""
    if not times.rounds:
        return NONE
    return f"{ms(times.median)} ({ms(times.at(0.25))} to {ms(times.at(0.75))})"


def time_of(result: VariantResult | None, name: bool = False) -> str:
    if result is None:
        return NONE
    return f"{ms(result.times.median)}{f' ({result.variant.name})' if name else ''}"


def times(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def megabytes(peak: Peak | None) -> str:
    return NONE if peak is None else f"{peak.above / 1e6:.0f}"


def verdict(met: bool | None) -> str:
    return NONE if met is None else "yes" if met else "no"


def speed_table(results: list[RowResult]) -> str:
    """Times of both sides, ratios, and whether they are what is aimed at."""
    columns = ["work", "Foveate ms", "PyTorch eager", "compiled", "ratio", "by round", "aim", "met", "rewritten PyTorch", "ratio"]

    def line(r: RowResult) -> list[str]:
        if r.failure:
            return [r.row.title, "failed", *[NONE] * (len(columns) - 2)]
        best, other = r.best(False), r.best(True)
        ratio = r.ratio(best)
        by_round = r.ratios(best) if best else []
        several = len({v.form for v in r.row.variants if not v.rewritten}) > 1
        met = None if ratio is None or r.row.target is None else ratio >= r.row.target
        return [
            r.row.title,
            spread(r.times),
            time_of(r.fastest(EAGER), several),
            time_of(r.fastest(COMPILE), several),
            times(ratio),
            f"{min(by_round):.2f} to {max(by_round):.2f}" if by_round else NONE,
            NONE if r.row.target is None else f"{r.row.target:g}",
            verdict(met),
            time_of(other, name=True),
            times(r.ratio(other)),
        ]

    return table(columns, map(line, results))


def rate_table(results: list[RowResult], machine: Machine) -> str:
    """Operations and bytes a second, beside what the machine reaches at best."""
    columns = ["work", "GFLOP", "GFLOP/s", "of multiply-adds", "GB/s", "of bandwidth", "products: GFLOP", "Foveate", "PyTorch"]

    def line(r: RowResult) -> list[str]:
        seconds = r.times.median / 1e3
        flops, moved = r.foveate["flops"] / seconds, r.foveate["bytes"] / seconds
        best = r.best(False)
        products = [NONE] * 3
        if r.product_flops > 0:
            rates = [f"{r.product_flops / (t * 1e6):.0f}" for t in (r.times.median, best.times.median if best else float("inf"))]
            products = [f"{r.product_flops / 1e9:.3g}", rates[0], rates[1] if best else NONE]
        return [
            r.row.label,
            f"{r.foveate['flops'] / 1e9:.3g}",
            f"{flops / 1e9:.0f}",
            f"{100 * flops / machine.flops:.0f} %",
            f"{moved / 1e9:.1f}",
            f"{100 * moved / machine.bandwidth:.0f} %",
            *products,
        ]

    return table(columns, [line(r) for r in results if r.times.rounds and r.foveate])


def agreement_table(results: list[RowResult]) -> str:
    """Errors of both sides against the float64 reference."""
    columns = ["work", "Foveate: outputs", "gradients", "PyTorch: outputs", "gradients", "bounds"]

    def number(value: float) -> str:
        return f"{value:.0e}".replace("e-0", "e-")

    def line(r: RowResult) -> list[str]:
        gradients = r.row.part != "inference"
        theirs = [v.agreement for v in r.variants if v.agreement]
        ours = [number(r.agreement.output), number(r.agreement.gradient) if gradients else NONE] if r.agreement else [NONE] * 2
        worst = [NONE, NONE]
        if theirs:
            worst = [number(max(a.output for a in theirs)), number(max(a.gradient for a in theirs)) if gradients else NONE]
        bounds = number(OUTPUT_BOUND)
        if gradients:
            bounds += f", {number(LOOSE_BOUND if r.row.loose == '*' else GRADIENT_BOUND)}"
            bounds += f" ({r.row.loose} {number(LOOSE_BOUND)})" if r.row.loose not in ("", "*") else ""
        return [f"{r.row.label}{' **DISAGREES**' if r.disagrees else ''}", *ours, *worst, bounds]

    return table(columns, map(line, results))


def memory_table(results: list[MemoryResult]) -> str:
    """Peaks of the training steps."""
    columns = [
        "training step",
        "Foveate MB",
        "PyTorch eager",
        "compiled",
        "share",
        "aim",
        "met",
        "share of PyTorch less its import",
        "rewritten PyTorch",
    ]

    def line(r: MemoryResult) -> list[str]:
        def of(mode: str) -> str:
            name = next((v.name for v in r.row.variants if not v.rewritten and v.mode == mode), "")
            return megabytes(r.torch.get(name))

        other = r.least(True)
        share, less = r.share(), r.share(less_import=True)
        return [
            r.row.title,
            megabytes(r.foveate),
            of(EAGER),
            of(COMPILE),
            times(share),
            f"{MEMORY_TARGET:g}",
            verdict(r.met),
            times(less),
            f"{megabytes(other[1])} ({other[0]})" if other else NONE,
        ]

    return table(columns, map(line, results))


def scaling_table(result: ScalingResult) -> str:
    """One module at several sizes with the same number of tokens."""
    timed = any(s.times.rounds for s in result.sizes)
    names = list(dict.fromkeys(name for s in result.sizes for name in (*s.torch_times, *s.torch_peaks)))
    columns = ["size", *(["Foveate ms"] if timed else []), "Foveate MB", "of that buffers"]
    for name in names:
        columns += [*([f"{name} ms"] if timed else []), f"{name} MB", "less import"]
    lines = []
    for s in result.sizes:
        line = [s.row.title, *([spread(s.times)] if timed else []), megabytes(s.peak), f"{s.buffers / 1e6:.0f}"]
        for name in names:
            if timed:
                line.append(spread(s.torch_times.get(name, Times())))
            peak = s.torch_peaks.get(name)
            line += [megabytes(peak), NONE if peak is None else f"{peak.less_import / 1e6:.0f}"]
        lines.append(line)
    return table(columns, lines)


def scaling_text(result: ScalingResult) -> str:
    """The table and what it shows."""
    parts = [f"**{result.title}.**"]
    checks = [("time", result.time_spread()), ("memory", result.memory_spread())]
    for what, value in checks:
        if value is not None:
            parts.append(f"Foveate's {what}: largest over smallest {value:.2f}, aim 1.25: {'met' if result.met(value) else 'not met'}.")
    return f"{' '.join(parts)}\n\n{scaling_table(result)}"


def notes(results: Results) -> list[str]:
    """What failed, and why bounds are looser than usual."""
    out = []
    for r in results.rows:
        if r.failure:
            out.append(f"{r.row.label}: {r.failure}")
        if r.others > BUSY:
            out.append(f"{r.row.label}: other programs took {100 * r.others:.0f} % of the processors meanwhile.")
        out += [f"{r.row.label}, PyTorch {v.variant.name}: {v.failure}" for v in r.variants if v.failure]
    for m in results.memory:
        out += [f"{m.row.title}, memory, {name}: {text}" for name, text in m.failures.items()]
    for s in results.scaling:
        out += s.failures
        if s.others > BUSY:
            out.append(f"{s.title}: other programs took {100 * s.others:.0f} % of the processors meanwhile.")
    reasons = {r.row.why for r in results.rows if r.row.why}
    return [*out, *(f"Gradients with the bound {LOOSE_BOUND:.0e}: {why}.".replace("e-0", "e-") for why in sorted(reasons))]


def compile_text(results: list[RowResult]) -> str:
    """How long starts took, in words."""
    parts = []
    for r in results:
        compiled = [v for v in r.variants if v.variant.mode == COMPILE and not v.variant.rewritten and v.first_s]
        if r.row.part != "step" or not compiled or not r.foveate:
            continue
        parts.append(f"{r.row.title} {r.foveate['start_s']:.1f} s and {compiled[0].first_s:.0f} s")
    if not parts:
        return ""
    return f"Until the first run of the training step had ended, Foveate and torch.compile took: {'; '.join(parts)}. No table counts this.\n"


def document(results: Results) -> str:
    """The whole section."""
    m, budget = results.machine, results.budget
    groups = (("Modules, forward and backward", "gradients"), ("Training steps at 224 x 224, batch 4", "step"))
    inference = [r for r in results.rows if r.row.part == "inference"]
    models = [r for r in inference if r.row.target is not None]
    forwards = [r for r in inference if r.row.target is None]
    v = m.versions
    out = [
        "## Against PyTorch",
        f"`make bench`, {m.date}: {m.processor}; {m.cores} cores, {m.memory_bytes / 2**30:.0f} GiB, {m.system}. Foveate {v['foveate']}, PyTorch "
        f"{v['torch']} ({v['isa']}, {m.cores} threads), Python {v['python']}, OpenCV {v['opencv']}, {v['c++'] or 'no C++ compiler'}. Float32.",
        f"{budget.rounds} rounds of {budget.seconds:g} s a side, alternately, on the same tensors. Milliseconds are medians of all runs, with quartiles in "
        "brackets. A ratio is PyTorch's median over Foveate's: of the authors' formulation, eager or compiled, whichever is faster; by round, the "
        "smallest and largest ratio of one round. Rewritten PyTorch computes the same values in a way that suits it better. "
        "`bench/README.md` says what exactly is compared.",
        f"At best the machine reached {m.flops / 1e9:.0f} GFLOP/s of fused multiply-adds and {m.bandwidth / 1e9:.1f} GB/s from memory.",
    ]

    def section(title: str, rows: list[RowResult]) -> None:
        if rows:
            out.extend([f"### {title}", speed_table(rows)])

    for title, part in groups:
        section(title, [r for r in results.rows if r.row.part == part])
    section("Inference at 224 x 224, batch 4", models)
    section("Modules, forward only", forwards)
    if forwards:
        out.append("FlexAttention is among these alone: on CPUs it has no backward.")
    if any(r.times.rounds for r in results.rows):
        out += [
            "### Shares of the machine",
            "Operations and bytes are those of Foveate's kernels: what they compute, pointwise work and recomputation included, and the buffers that "
            "they read and write. Products are the matrix products and convolutions alone, counted by PyTorch in its leanest form, with "
            "the rate in GFLOP/s at which each side gets through them, everything else included.",
            rate_table(results.rows, m),
        ]
    if results.memory:
        out += [
            "### Peak memory of the training step",
            "The process's peak above parameters, gradients and moments; of compiled PyTorch that of the steps, without the compilation. The share is of "
            "the smaller of eager and compiled.",
            memory_table(results.memory),
        ]
    if results.scaling:
        out += ["### Growth at a constant number of tokens", *map(scaling_text, results.scaling)]
    if results.rows:
        out += [
            "### The same numbers",
            "Largest relative L2 errors of a tensor against the authors' formulation in float64; the bounds are those of `tests/golden/README.md` "
            f"({OUTPUT_BOUND:.0e} and {GRADIENT_BOUND:.0e}) unless a note says otherwise. PyTorch's are those of its worst variant.".replace("e-0", "e-"),
            agreement_table(results.rows),
        ]
    text = compile_text(results.rows)
    remarks = notes(results)
    if text or remarks:
        out += ["### Notes", *([text.strip()] if text else []), *(["\n".join(f"- {n}" for n in remarks)] if remarks else [])]
    return "\n\n".join(out) + "\n"


def around(path: Path) -> tuple[str, str]:
    """What stands before and after the section in a file; a file without one gets it at its end."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    begin, end = text.find(BEGIN), text.find(END)
    if 0 <= begin < end:
        return text[:begin], text[end + len(END) :]
    if begin < 0 and end < 0:
        return (f"{text.rstrip()}\n\n" if text.strip() else ""), "\n"
    raise ValueError(f"{path}: one of the lines `{BEGIN}` and `{END}` is missing, or they are in the wrong order")


def rewrite(path: Path, section: str) -> None:
    """Puts the section into a file, between its markers. The file is replaced whole or not at all."""
    before, after = around(path)
    write_whole(path, f"{before}{BEGIN}\n\n{section}\n{END}{after}")


def write_whole(path: Path, text: str) -> None:
    """Writes a file through a temporary one beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
