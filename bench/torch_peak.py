"""Memory of one row on PyTorch's side, in a fresh process. Run by bench/run.py; prints one JSON object of byte counts.

`import` is what the process holds once PyTorch is imported, `state` what parameters, gradients and moments take, `peak` the most the
process ever held, `stepping` the most it held after the first run. The two differ where torch.compile's own work is in `peak`.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RUNS = 5


def status(key: str) -> int:
    """A field of /proc/self/status that counts kilobytes, in bytes."""
    for line in STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) << 10
    raise KeyError(key)


def reset_peak() -> bool:
    """Lets the peak begin anew from what is held now; False where the system does not allow it."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def main() -> None:
    imported = status("VmRSS")
    # Imported only now, so that `imported` is PyTorch alone.
    from rows import BY_KEY, COMPILE, EAGER
    from torch_worker import Work

    parser = argparse.ArgumentParser()
    parser.add_argument("--row", required=True, choices=BY_KEY)
    parser.add_argument("--form", required=True)
    parser.add_argument("--mode", required=True, choices=(EAGER, COMPILE))
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    row = BY_KEY[arguments.row]
    work = Work(row, arguments.form, arguments.mode, None)
    if row.part == "step":
        work.optimizer = torch.optim.AdamW(work.parameters, lr=1e-4, weight_decay=0.05, fused=True)
    work.once()
    first = status("VmHWM")
    reset = reset_peak()
    for _ in range(RUNS):
        work.once()
    stepping = status("VmHWM")
    copies = 4 if row.part == "step" else 2
    state = copies * sum(p.numel() * p.element_size() for p in work.parameters)
    peak = max(first, stepping)
    json.dump({"import": imported, "state": state, "peak": peak, "stepping": stepping if reset else peak}, out)


if __name__ == "__main__":
    main()
