#!/bin/sh
# Makes the private Python environment that bench/run.py measures PyTorch in: the folder in $FOVEATE_BENCH_ENV, or target/bench-venv.
#
# It gets the versions of bench/requirements.txt, with pip, from wherever pip is set up to look. Where they are all there, there is
# nothing to do. PyPI's PyTorch for Linux carries libraries for GPUs, about 6 GB on disk; an index of PyTorch for CPUs serves as well.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
env=${FOVEATE_BENCH_ENV:-$root/target/bench-venv}
requirements=$root/bench/requirements.txt

say() { printf 'bench setup: %s\n' "$*" >&2; }

# Whether the environment has exactly the required versions; a local version such as +cpu is no difference.
is_complete() {
    [ -x "$env/bin/python" ] && "$env/bin/python" - "$requirements" <<'PYTHON'
import sys
from importlib.metadata import PackageNotFoundError, version

for line in open(sys.argv[1], encoding="utf-8"):
    name, _, wanted = line.strip().partition("==")
    try:
        found = version(name).partition("+")[0] if name else wanted
    except PackageNotFoundError:
        sys.exit(1)
    if found != wanted:
        sys.exit(1)
PYTHON
}

if is_complete; then
    say "PyTorch is in place at $env"
    exit 0
fi

python=${PYTHON:-python3}
if ! command -v "$python" >/dev/null 2>&1; then
    say "python3 is not there: install Python 3.11 or newer, or name it in PYTHON, then run this again"
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    say "$("$python" --version) is too old: install Python 3.11 or newer, or name it in PYTHON, then run this again"
    exit 1
fi
if ! command -v c++ >/dev/null 2>&1 && ! command -v g++ >/dev/null 2>&1; then
    say "there is no C++ compiler: torch.compile will not work, and the benchmark will say so"
fi
if [ ! -x "$env/bin/python" ]; then
    say "making a Python environment at $env"
    if ! "$python" -m venv "$env"; then
        say "that did not work; on Debian: apt-get install python3-venv"
        exit 1
    fi
fi
say "installing $(tr '\n' ' ' < "$requirements")(a few minutes)"
"$env/bin/python" -m pip install --quiet --requirement "$requirements" >&2
if ! is_complete; then
    say "pip reported no error, but the versions in $env are not those of $requirements"
    exit 1
fi
say "PyTorch is in place at $env"
