"""What the benchmark ran on."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from sides import ROOT, Foveate, Torch


@dataclass
class Machine:
    """The machine, the versions of everything, and what the machine reaches at best."""

    date: str
    processor: str
    cores: int
    memory_bytes: int
    system: str
    versions: dict[str, str]
    flops: float = 0.0
    """Floating-point operations a second of fused multiply-adds, the best of those measured."""
    bandwidth: float = 0.0
    """Bytes a second of y = a x + y from memory."""

    def measure(self, foveate: Foveate) -> None:
        """Measures the ceilings; the best of all measurements counts."""
        flops, bandwidth = foveate.ceilings()
        self.flops, self.bandwidth = max(self.flops, flops), max(self.bandwidth, bandwidth)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name, with the widest vectors that it says it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = fields.get("flags", "").split()
    vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    model = " ".join(fields.get("model name", platform.machine()).split())
    if {"cpu family", "model"} <= fields.keys():
        model += f" (family {fields['cpu family']}, model {fields['model']})"
    return f"{model}, {vectors}" if vectors else model


def output_of(command: list[str]) -> str:
    """The first line that a command prints; empty if it fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return (done.stdout.splitlines() or [""])[0].strip()


def describe_machine(foveate: Foveate, torch: Torch) -> Machine:
    """Everything but the ceilings."""
    commit = output_of(["git", "rev-parse", "--short", "HEAD"])
    changed = output_of(["git", "status", "--porcelain", "--untracked-files=no"])
    versions = {"foveate": foveate.version().removeprefix("foveate "), **torch.versions()}
    if commit:
        versions["foveate"] += f" ({commit}{' and changes' if changed else ''})"
    versions["c++"] = output_of(["c++", "--version"])
    return Machine(
        date=datetime.date.today().isoformat(),
        processor=processor(),
        cores=cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.release()}",
        versions=versions,
    )


class Others:
    """How much of the processors other programs take while something is measured.

    `processes` are those of this program that go on running; children that have ended are counted by the system.
    """

    def __init__(self, processes: list[int]) -> None:
        self.processes = processes
        self.clock = time.monotonic()
        self.begin = self.now()

    def share(self) -> float:
        """Their share of all processor time since the beginning; 0 where the system does not tell."""
        end, seconds = self.now(), time.monotonic() - self.clock
        if self.begin is None or end is None or seconds <= 0:
            return 0.0
        everyone, own = end[0] - self.begin[0], end[1] - self.begin[1]
        return max(0.0, everyone - own) / (seconds * (os.cpu_count() or 1))

    def now(self) -> tuple[float, float] | None:
        """Seconds of processor time that all programs have used, stolen time included, and that this program has."""
        try:
            tick = os.sysconf("SC_CLK_TCK")
            fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
            # user, nice, system, idle, iowait, irq, softirq, steal
            everyone = sum(int(n) for at, n in enumerate(fields) if at not in (3, 4)) / tick
            spent = os.times()
            own = spent.user + spent.system + spent.children_user + spent.children_system
            for process in self.processes:
                # After the name: utime, stime, cutime, cstime are the fields 14 to 17.
                fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                own += sum(int(n) for n in fields[11:15]) / tick
        except (OSError, ValueError, IndexError):
            return None
        return everyone, own
