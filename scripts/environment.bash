# Sourced by the scripts beside it: sets root (the repository), CARGO_TARGET_DIR and binary, and checks for the Rust toolchain.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
# Unused in scripts that only check.
# shellcheck disable=SC2034
binary=$CARGO_TARGET_DIR/release/millrace

needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/Cargo.toml")
if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
    echo "scripts: no Rust toolchain; install Rust $needed or newer from https://rustup.rs" >&2
    exit 1
fi
found=$(rustc --version | cut -d ' ' -f 2)
if [[ $(printf '%s\n' "$needed" "${found%%-*}" | sort -V | head -n 1) != "$needed" ]]; then
    echo "scripts: Rust $found is too old; $needed or newer is needed: rustup update" >&2
    exit 1
fi
