#!/bin/sh
# Makes a Vulkan device available to the tests of portable kernels: a GPU's own driver, or Mesa's software one.
set -eu

say() { printf 'setup: %s\n' "$*" >&2; }

for dir in /usr/share/vulkan/icd.d /etc/vulkan/icd.d; do
    if [ -d "$dir" ] && [ -n "$(ls "$dir")" ]; then
        exit 0
    fi
done
if ! command -v apt-get >/dev/null 2>&1; then
    say "no Vulkan driver found; install one (Mesa's lavapipe will do) and run this again"
    exit 1
fi
root=
if [ "$(id -u)" -ne 0 ]; then
    root=sudo
fi
say "no Vulkan driver found; installing Mesa's software driver"
export DEBIAN_FRONTEND=noninteractive
$root apt-get update -qq >&2
$root apt-get install -y -qq mesa-vulkan-drivers libvulkan1 >&2
