//! Each layer works without the layers above it. A program outside of the workspace depends on it
//! alone.
//!
//! ```text
//!   alone/LAYER.rs ──► a package in a folder of its own ──► cargo run, offline ──► exits with 0
//!                      depends on LAYER and nothing else
//! ```
//!
//! If a layer needs no standard library, its program uses neither the standard library nor `alloc`,
//! and no default features.

use std::{fs, path::Path, process::Command};

/// Builds and runs the program `source` of `layer`.
fn runs(layer: &str, source: &str, std: bool) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("a folder");
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("src")).expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
    write("Cargo.toml", &manifest(layer, &root, std));
    let main =
        if std { include_str!("alone/std_main.rs") } else { include_str!("alone/no_std_main.rs") };
    write("src/main.rs", main);
    write("src/program.rs", source);
    // The versions that the workspace uses are on this machine already.
    fs::copy(root.join("Cargo.lock"), folder.path().join("Cargo.lock")).expect("a lock file");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);

    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--release", "--offline"])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", target.join("alone"))
        // Sanitizers and coverage need the standard library.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-Dwarnings")
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Returns the manifest of a package outside every workspace.
fn manifest(layer: &str, root: &Path, std: bool) -> String {
    let path = root.join("crates").join(layer);
    let package = if layer == "obmalloc" { layer.to_owned() } else { format!("obmalloc-{layer}") };
    format!(
        "[package]\nname = \"{layer}-alone\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\n{package} = {{ path = {path:?}, default-features = {std} }}\n\n\
         [profile.release]\npanic = \"abort\"\nlto = true\n"
    )
}

#[test]
fn raw_mem_serves_a_program_without_the_standard_library() {
    runs("raw-mem", include_str!("alone/raw_mem.rs"), false);
}

#[test]
fn obmalloc_serves_a_program_without_the_standard_library() {
    runs("obmalloc", include_str!("alone/obmalloc.rs"), false);
}

#[test]
fn object_cache_serves_a_program_without_the_standard_library() {
    runs("object-cache", include_str!("alone/object_cache.rs"), false);
}

#[test]
fn thread_heap_serves_a_program_without_domains_and_caches() {
    runs("thread-heap", include_str!("alone/thread_heap.rs"), true);
}

#[test]
fn allocator_api_serves_a_program_without_a_heap() {
    runs("allocator-api", include_str!("alone/allocator_api.rs"), true);
}
