#!/bin/bash
# Builds the program for x86_64-unknown-linux-musl, which needs no library of the host, and prints its path.
# Environment: LAMINA_PROFILE (default release). Needs what `scripts/deps static` installs. Leaves target/static.
. "$(dirname "$0")/../lib.sh"
target=x86_64-unknown-linux-musl
profile=${LAMINA_PROFILE:-release}
command -v musl-gcc >/dev/null || die "no musl-gcc on PATH: run 'scripts/deps static'"
ls "$(rustc --print sysroot)/lib/rustlib/$target/lib"/libstd-*.rlib >/dev/null 2>&1 ||
    die "the toolchain has no standard library for $target: run 'rustup target add $target'"
export CC_x86_64_unknown_linux_musl=musl-gcc
cargo build --quiet --profile "$profile" --target "$target" -p lamina --manifest-path "$repo/Cargo.toml" \
    --target-dir "$repo/target/static" >&2
echo "$repo/target/static/$target/$profile/lamina"
