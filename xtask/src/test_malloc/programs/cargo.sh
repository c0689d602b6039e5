# Builds the project: the products must be the same.
set -e
export CARGO_HOME=${CARGO_HOME:-$REAL_HOME/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$REAL_HOME/.rustup}
cargo build --offline --release --jobs 2 --manifest-path "$PROJECT/Cargo.toml" --target-dir target \
    --package obmalloc-cpython --package obmalloc-malloc --package obmalloc-global-alloc
sha256sum target/release/*.so target/release/*.rlib
