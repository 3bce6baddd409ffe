#!/bin/sh
# Makes LLVM available to the CPU kernels' compiler (cubecl-cpu links it statically).
#
# Its build script downloads a bundle into the user's data directory. Where that download works, or has been made, there is nothing to do.
# Elsewhere (closed networks, continuous integration) Debian's LLVM 22 takes the bundle's place: this script installs it with apt and
# puts a small llvm-config wrapper where the build script looks.
set -eu

version=23.1.0-4
prefix="${XDG_DATA_HOME:-$HOME/.local/share}/tracel/tracel-llvm-$version"
url="https://github.com/tracel-ai/tracel-llvm/releases/download/v$version/"
packages="llvm-22-dev libpolly-22-dev libzstd-dev libz3-dev libxml2-dev zlib1g-dev"

say() { printf 'setup: %s\n' "$*" >&2; }

if [ -e "$prefix/.tracel-llvm-installed" ]; then
    exit 0
fi
if [ "$(uname -s)" != Linux ]; then
    say "the build will download LLVM for this system"
    exit 0
fi
if command -v curl >/dev/null 2>&1 && curl -sS -o /dev/null --max-time 10 "$url" 2>/dev/null; then
    say "the build will download LLVM $version (about 200 MB, once)"
    exit 0
fi

say "the LLVM bundle cannot be downloaded here; using Debian's LLVM 22 in its place"
if ! command -v llvm-config-22 >/dev/null 2>&1; then
    if ! command -v apt-get >/dev/null 2>&1; then
        say "apt-get is not there either: install LLVM 22 with its development files so that llvm-config-22 is found, then run this again"
        exit 1
    fi
    root=
    if [ "$(id -u)" -ne 0 ]; then
        root=sudo
    fi
    say "installing $packages"
    export DEBIAN_FRONTEND=noninteractive
    $root apt-get update -qq >&2
    # shellcheck disable=SC2086
    $root apt-get install -y -qq $packages >&2
fi

mkdir -p "$prefix/bin"
# The build script mangles absolute library paths, so they become -l flags; everything else passes through.
cat > "$prefix/bin/llvm-config" <<'WRAPPER'
#!/bin/sh
answer=$(llvm-config-22 "$@") || exit $?
printf '%s\n' "$answer" | sed -E 's#/[^ ]*/lib([A-Za-z0-9_+-]+)\.so#-l\1#g'
WRAPPER
chmod +x "$prefix/bin/llvm-config"
"$prefix/bin/llvm-config" --version >/dev/null
touch "$prefix/.tracel-llvm-installed"
say "LLVM 22 is in place at $prefix"
