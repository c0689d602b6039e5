//! Each layer without those above it: a program outside of the workspace that depends on it.
//!
//! ```text
//!   alone/LAYER.rs ──► a package in a folder of its own ──► cargo run, offline ──► ends well
//!                      depends on LAYER and nothing else
//! ```
//!
//! Layers that need no standard library get a program without one, without `alloc`, and without
//! default features.

use std::{fs, process::Command};

use crate::{process, workspace};

/// A program of one layer.
struct Program {
    layer: &'static str,
    source: &'static str,
    std: bool,
}

/// Builds and runs `program`.
fn runs(program: &Program) {
    let folder = tempfile::tempdir().expect("a folder");
    let sources = folder.path().join("src");
    fs::create_dir(&sources).expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
    write("Cargo.toml", &manifest(program));
    let main = if program.std {
        include_str!("alone/std_main.rs")
    } else {
        write("src/bump.rs", include_str!("alone/bump.rs"));
        include_str!("alone/no_std_main.rs")
    };
    write("src/main.rs", main);
    write("src/program.rs", program.source);
    // The versions that the workspace uses are here already.
    fs::copy(workspace::root().join("Cargo.lock"), folder.path().join("Cargo.lock"))
        .expect("a lock");

    let mut command = Command::new(env!("CARGO"));
    command
        .args(["run", "--quiet", "--release", "--offline"])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", workspace::target_dir().join("alone"))
        // Sanitizers and coverage need the standard library.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-Dwarnings");
    let finished = process::run(command, |_| ()).expect("cargo runs");
    assert!(finished.success, "{}", finished.output);
}

/// The manifest of a package outside of every workspace.
fn manifest(program: &Program) -> String {
    let Program { layer, std, .. } = program;
    let crates = workspace::root().join("crates").canonicalize().expect("the layers");
    let path = crates.join(layer);
    format!(
        "[package]\nname = \"{layer}-alone\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n{layer} = {{ path = {path:?}, default-features = {std} }}\n\n\
         [profile.release]\npanic = \"abort\"\nlto = true\n"
    )
}

#[test]
fn raw_mem_serves_a_program_without_the_standard_library() {
    let source = include_str!("alone/raw_mem.rs");
    runs(&Program { layer: "raw-mem", source, std: false });
}

#[test]
fn obmalloc_serves_a_program_without_the_standard_library() {
    let source = include_str!("alone/obmalloc.rs");
    runs(&Program { layer: "obmalloc", source, std: false });
}

#[test]
fn object_cache_serves_a_program_without_the_standard_library() {
    let source = include_str!("alone/object_cache.rs");
    runs(&Program { layer: "object-cache", source, std: false });
}

#[test]
fn thread_heap_serves_a_program_without_domains_and_caches() {
    let source = include_str!("alone/thread_heap.rs");
    runs(&Program { layer: "thread-heap", source, std: true });
}

#[test]
fn allocator_api_serves_a_program_without_a_heap() {
    let source = include_str!("alone/allocator_api.rs");
    runs(&Program { layer: "allocator-api", source, std: true });
}
