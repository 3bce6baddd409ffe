"""The two sides as seen from the process that runs the benchmark: the `foveate` binary, and PyTorch in processes of its own."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rows import GRADIENT_BOUND, OUTPUT_BOUND, Row, Variant

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

START_S = 1800.0
"""Seconds that a start may take: torch.compile works for minutes on a whole network."""
GRACE_S = 900.0
"""Seconds beyond those asked for that a measurement may take."""


class SideError(Exception):
    """One of the sides failed; the message is what it said last."""


@dataclass(frozen=True)
class Agreement:
    """How far float32 numbers are from the float64 reference: largest relative L2 errors, and whether they are within the bounds."""

    output: float
    gradient: float
    ok: bool


EXCEPTION = re.compile(r"^(\w+\.)*\w*(Error|Exception|Unsupported|Interrupt)\b.*")


def gist(text: str) -> str:
    """What an output says about a failure, in one line: its last exception, or else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [line for line in lines if EXCEPTION.match(line)] or lines
    return found[-1][:300] if found else ""


class Foveate:
    """The `foveate` binary."""

    def __init__(self, binary: Path) -> None:
        self.binary = binary

    def run(self, arguments: list[str], seconds: float = 0.0, allowed: tuple[int, ...] = (0,)) -> dict:
        """The JSON that a verb prints."""
        try:
            done = subprocess.run([str(self.binary), *arguments, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=seconds + GRACE_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SideError(f"foveate {' '.join(arguments)}: {error}") from error
        if done.returncode in allowed:
            try:
                return json.loads(done.stdout)
            except json.JSONDecodeError:
                pass
        said = gist(done.stderr or done.stdout) or f"exit status {done.returncode}, no output"
        raise SideError(f"foveate {' '.join(arguments)}: {said}")

    def target(self, row: Row) -> list[str]:
        """An item with its arguments."""
        return [row.item, *(part for name, value in row.settings.items() for part in ("--set", f"{name}={value}"))]

    def verify(self, row: Row, file: Path) -> Agreement:
        """Whether Foveate computes the numbers of the file. Errors of gradients are counted beyond the floor that `verify` allows."""
        # A tensor that misses its bound makes the exit status 1, with the table all the same.
        found = self.run(["verify", *self.target(row), "--against", str(file)], allowed=(0, 1))
        worst, ok = {"output": 0.0, "grad": 0.0}, True
        for line in found["rows"]:
            kind, name = line["tensor"].split("/", 1)
            usual, bound = (GRADIENT_BOUND, row.bound(name)) if kind == "grad" else (OUTPUT_BOUND, OUTPUT_BOUND)
            # What is not a number comes as null.
            error = float("inf") if line["error"] is None else max(0.0, line["error"] - max(0.0, line["bound"] - usual))
            worst[kind] = max(worst[kind], error)
            ok = ok and (line["pass"] or error <= bound)
        return Agreement(worst["output"], worst["grad"], ok)

    def bench(self, row: Row, seconds: float, file: Path | None) -> dict:
        """A measurement, on the tensors of a file or on random ones."""
        given = ["--against", str(file)] if file else self.shapes(row)
        return self.run(["bench", *self.target(row), "--part", row.part, "--seconds", str(seconds), *given], seconds)

    def shapes(self, row: Row) -> list[str]:
        """What `--against` would tell."""
        out = ["--batch", str(row.batch)]
        if row.size:
            out += ["--set", f"C={row.size['channels']}"]
            if "grid" not in row.settings:
                out += ["--set", f"N={row.size['grid'] ** 2}"]
        return out

    def ceilings(self) -> tuple[float, float]:
        """Floating-point operations and bytes a second that the machine reaches at best."""
        small = ["specs/losses/spatial_entropy.fov:SpatialEntropy", "--set", "H=1", "--set", "grid=4x4"]
        found = self.run(["bench", *small, "--batch", "1", "--seconds", "0", "--ceilings"])["ceilings"]
        return found["flops"], found["bandwidth"]

    def version(self) -> str:
        done = subprocess.run([str(self.binary), "--version"], capture_output=True, text=True, check=True)
        return done.stdout.strip()


class Worker:
    """A process of PyTorch that holds one variant of a row, compiled and warm. Use `Torch.worker`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self.log = process, log
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        start = self.answer(START_S)
        self.first_s: float = start["first_s"]
        self.agreement = Agreement(**start["errors"]) if start["errors"] else None
        self.optimizer: str | None = start.get("optimizer")

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def answer(self, seconds: float) -> dict:
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            raise SideError(f"no answer in {seconds:.0f} s") from None
        if not line:
            raise SideError(gist(self.log.read_text(errors="replace")) or f"exit status {self.process.wait()}")
        return json.loads(line)

    def measure(self, seconds: float) -> list[float]:
        """Milliseconds of each run over so many seconds."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{seconds}\n")
            self.process.stdin.flush()
        except OSError as error:
            raise SideError(gist(self.log.read_text(errors="replace")) or str(error)) from error
        return self.answer(seconds + GRACE_S)["runs"]


class Torch:
    """PyTorch in a Python environment."""

    def __init__(self, python: Path, threads: int, scratch: Path) -> None:
        self.python, self.threads, self.scratch = python, threads, scratch
        # Cold compile times: what an earlier run compiled is not used.
        self.environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor")}

    def command(self, script: str, row: Row, variant: Variant | None = None) -> list[str]:
        out = [str(self.python), str(HERE / script), "--row", row.key, "--threads", str(self.threads)]
        return out + (["--form", variant.form, "--mode", variant.mode] if variant else [])

    def call(self, arguments: list[str]) -> dict:
        """The JSON object that a script prints."""
        try:
            done = subprocess.run(arguments, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=START_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SideError(str(error)) from error
        if done.returncode != 0:
            raise SideError(gist(done.stderr) or f"exit status {done.returncode}")
        return json.loads(done.stdout)

    def check(self, script: Path) -> None:
        """Runs a script that compares the reference modules with known numbers."""
        done = subprocess.run([str(self.python), str(script)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SideError(f"{script.name}: {gist(done.stderr or done.stdout)}")

    def prepare(self, row: Row, file: Path) -> dict:
        """Writes the tensors of a row."""
        return self.call([*self.command("torch_prepare.py", row), "--file", str(file)])

    def peak(self, row: Row, variant: Variant) -> dict[str, int]:
        """Byte counts of a fresh process."""
        return self.call(self.command("torch_peak.py", row, variant))

    def versions(self) -> dict[str, str]:
        """Versions of Python, PyTorch and OpenCV, and the instruction set that PyTorch uses."""
        code = (
            "import json, platform, cv2, torch; print(json.dumps({'python': platform.python_version(), 'torch': torch.__version__, "
            "'opencv': cv2.__version__, 'isa': torch.backends.cpu.get_cpu_capability()}))"
        )
        return self.call([str(self.python), "-c", code])

    @contextmanager
    def worker(self, row: Row, variant: Variant, file: Path | None) -> Iterator[Worker]:
        """A process for one variant, ended with the context."""
        log = self.scratch / f"{row.key}-{variant.form}-{variant.mode}.log"
        command = self.command("torch_worker.py", row, variant) + (["--file", str(file)] if file else [])
        with (
            log.open("w") as errors,
            subprocess.Popen(command, cwd=ROOT, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            try:
                yield Worker(process, log)
            finally:
                process.kill()
