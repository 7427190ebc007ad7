#!/bin/sh
# Runs every fuzz target for so many seconds on its stored corpus; fails if one of them does.
#
# usage: fuzz/smoke.sh SECONDS
#
# Needs `cargo-fuzz` and a C++ compiler, and installs neither. The toolchain is the stable one:
# RUSTC_BOOTSTRAP lets it take the flags that cargo-fuzz passes. There is no address sanitizer:
# our code has no unsafe, and the C libraries below it are not instrumented by it.
# What a run finds stays outside the stored corpus; a crash is left in fuzz/artifacts/<target>.
# The last line says how many targets passed and failed.
set -eu

seconds=${1:?usage: fuzz/smoke.sh SECONDS}
cd "$(dirname "$0")/.."
export RUSTC_BOOTSTRAP=1

# One unit a crate, the default, takes half as long again to build and finds no more.
options='--sanitizer none --codegen-units 16'
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
# Directories that a target makes go with the rest.
export TMPDIR=$found

# All at once first: then a run is one, and what does not compile is seen before any has begun.
# shellcheck disable=SC2086 # several words
cargo fuzz build $options

passed=0
failed=0
for target in $(cargo fuzz list); do
    mkdir "$found/$target"
    # A seed or an input that takes ten seconds, or 512 MiB, is a crash as well: the limits that
    # the decoders promise are far below.
    if cargo fuzz run $options "$target" "$found/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=512 -max_len=65536 \
        -print_final_stats=1; then
        passed=$((passed + 1))
    else
        echo "fuzz target $target failed" >&2
        failed=$((failed + 1))
    fi
done
echo "fuzz targets: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
