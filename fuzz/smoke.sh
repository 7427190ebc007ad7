#!/bin/sh
# Runs every fuzz target for so many seconds on its stored corpus; fails on the first crash.
#
# usage: fuzz/smoke.sh SECONDS
#
# Needs `cargo-fuzz` and a C++ compiler, and installs neither. The toolchain is the stable one:
# RUSTC_BOOTSTRAP lets it take the flags that cargo-fuzz passes. There is no address sanitizer:
# our code has no unsafe, and the C libraries below it are not instrumented by it.
# What a run finds stays outside the stored corpus; a crash is left in fuzz/artifacts/<target>.
set -eu

seconds=${1:?usage: fuzz/smoke.sh SECONDS}
cd "$(dirname "$0")/.."
export RUSTC_BOOTSTRAP=1

found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT

for target in $(cargo fuzz list); do
    mkdir "$found/$target"
    # A seed or an input that takes ten seconds, or 512 MiB, is a crash as well: the limits that
    # the decoders promise are far below.
    cargo fuzz run --sanitizer none "$target" "$found/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=512 -max_len=65536 \
        -print_final_stats=1
done
