#!/usr/bin/env python3
"""Measures Foveate and PyTorch on the same work, checks that they compute the same numbers, and writes docs/benchmarks.md.

Run it with `make bench`, or, once bench/setup.sh has made the environment, as `bench/run.py --help` says. bench/README.md explains
what is compared and how to read the result.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True

import report  # noqa: E402
from machine import cores, describe_machine  # noqa: E402
from measure import Budget, RowResult, measure_row  # noqa: E402
from memory import measure_memory  # noqa: E402
from rows import ATTENTION_SCALING, ROWS, VICINITY_SCALING, Row  # noqa: E402
from scaling import measure_scaling  # noqa: E402
from sides import HERE, ROOT, Foveate, SideError, Torch  # noqa: E402

SCALINGS = (
    ("scaling_vicinity", "Vicinity attention, C 96, 1 head, f 2, forward and backward, 12,544 tokens", VICINITY_SCALING, True),
    ("scaling_attention", "Plain self-attention, C 384, 6 heads, forward and backward, 3,136 tokens", ATTENTION_SCALING, False),
)
QUICK = {"rounds": 1, "seconds": 0.1}
USUAL = {"rounds": 5, "seconds": 2.0}


def arguments() -> argparse.Namespace:
    environment = Path(os.environ.get("FOVEATE_BENCH_ENV") or ROOT / "target" / "bench-venv")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="only rows whose key matches (see --list); * stands for anything")
    parser.add_argument("--list", action="store_true", help="list the keys of all rows, and do nothing")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"rounds of each row [default: {USUAL['rounds']}]")
    parser.add_argument("--seconds", type=float, metavar="S", help=f"seconds a side and round [default: {USUAL['seconds']}]")
    parser.add_argument("--quick", action="store_true", help="one round of a few runs: whether all works, no figures to keep")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--no-rewritten", action="store_true", help="leave out the second column: half the time")
    parser.add_argument("--foveate", type=Path, default=ROOT / "target" / "release" / "foveate", metavar="PATH", help="the binary")
    parser.add_argument("--python", type=Path, default=environment / "bin" / "python", metavar="PATH", help="a Python with PyTorch")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the document to put the tables in [default: docs/benchmarks.md if all rows ran in full]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured as JSON")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    memory_keys = {f"memory_{r.key.removesuffix('_step')}": r for r in ROWS if r.part == "step"}
    keys = [*(r.key for r in ROWS), *memory_keys, *(key for key, *_ in SCALINGS)]
    if given.list:
        print("\n".join(keys))
        return 0
    chosen = [k for k in keys if not given.only or any(fnmatch.fnmatch(k, pattern) for pattern in given.only)]
    if not chosen:
        print(f"no row matches {' '.join(given.only)}; there are: {' '.join(keys)}", file=sys.stderr)
        return 2
    for path, remedy in ((given.foveate, "make build"), (given.python, "bench/setup.sh")):
        if not path.exists():
            print(f"{path} is not there: run {remedy} first", file=sys.stderr)
            return 2
    usual = QUICK if given.quick else USUAL
    budget = Budget(
        rounds=given.rounds or int(usual["rounds"]),
        seconds=usual["seconds"] if given.seconds is None else given.seconds,
        compile=not given.no_compile,
        rewritten=not given.no_rewritten,
    )
    full = not (given.only or given.quick or given.no_compile or given.no_rewritten)
    out = given.out or (ROOT / "docs" / "benchmarks.md" if full else None)

    try:
        # Better now than after an hour.
        if out:
            report.around(out)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2

    # Ended from outside, it cleans up as on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scratch = ROOT / "target" / "bench"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        try:
            results = measure_all(chosen, memory_keys, given, budget, Path(folder))
        except SideError as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
    section = report.document(results)
    print(f"\n{section}")
    save(results, given.json)
    if out:
        report.rewrite(out, section)
        print(f"written: {out}")
    return 0 if results.ok else 1


def measure_all(chosen: list[str], memory_keys: dict[str, Row], given: argparse.Namespace, budget: Budget, folder: Path) -> report.Results:
    """Everything that was chosen, in the order of the report."""
    # A copy, so that a build in the meantime changes nothing.
    binary = Path(shutil.copy2(given.foveate, folder / "foveate"))
    foveate, torch = Foveate(binary), Torch(given.python, cores(), folder)
    begin = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begin:7.0f} s  {text}", flush=True)

    say("comparing the PyTorch modules with the golden tensors")
    torch.check(HERE / "check_reference.py")
    results = report.Results(describe_machine(foveate, torch), budget)
    results.machine.measure(foveate)
    for row in ROWS:
        if row.key in chosen:
            say(f"{row.key}: {row.title}, {row.part}")
            result = measure_row(row, foveate, torch, budget, say)
            results.rows.append(result)
            say(f"  {summary(result)}")
            save(results, given.json)
    for key, row in memory_keys.items():
        if key in chosen:
            say(f"{key}: {row.title}, memory")
            results.memory.append(measure_memory(row, foveate, torch, budget, say))
            save(results, given.json)
    for key, title, rows, timed in SCALINGS:
        if key in chosen:
            say(f"{key}: {title}")
            results.scaling.append(measure_scaling(title, rows, timed, foveate, torch, budget, say))
    results.machine.measure(foveate)
    return results


def summary(result: RowResult) -> str:
    """One line on a row."""
    if not result.times.rounds:
        return "not measured"
    best, other = result.best(False), result.best(True)
    parts = [f"foveate {report.ms(result.times.median)} ms"]
    for found in (best, other):
        if found:
            parts.append(f"{found.variant.name} {report.ms(found.times.median)} ms, ratio {result.ratio(found):.2f}")
    return "; ".join(parts)


def save(results: report.Results, path: Path | None) -> None:
    """Writes what there is so far: a run that is ended early has not been for nothing."""
    if path:
        report.write_whole(path, json.dumps(as_json(results), indent=1) + "\n")


def as_json(results: report.Results) -> dict:
    """All results as plain data."""
    out = dataclasses.asdict(results)
    out["ok"] = results.ok
    for plain, result in zip(out["rows"], results.rows, strict=True):
        best, other = result.best(False), result.best(True)
        plain["ratio"], plain["ratio_rewritten"] = result.ratio(best), result.ratio(other)
        plain["best"] = best.variant.name if best else None
        plain["median_ms"] = result.times.median if result.times.rounds else None
        for variant, found in zip(plain["variants"], result.variants, strict=True):
            variant["median_ms"] = found.times.median if found.times.rounds else None
    return out


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
