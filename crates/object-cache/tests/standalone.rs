//! The crate alone: `tests/standalone` is a program outside of the workspace, without the standard
//! library, that depends on object-cache and nothing else.

use std::{path::Path, process::Command};

#[test]
fn a_program_without_the_standard_library_can_use_the_caches() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standalone/Cargo.toml");
    let status = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--release", "--locked", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("standalone"))
        // Sanitizers and coverage need the standard library.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .expect("cargo runs");
    assert!(status.success(), "{status}");
}
