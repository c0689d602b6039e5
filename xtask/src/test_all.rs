//! Runs every test of the project, step by step.

use std::{
    env,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use testkit::pythons::{self, Python, Search};

use crate::{
    bench::instructions, debian, dependencies, layers, loom, package, process, stress::Watcher,
    suite, tally::Tally, test_malloc, wheel, workspace,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Runs only the steps whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

struct Step {
    name: &'static str,
    run: fn() -> Result<Tally>,
}

const STEPS: &[Step] = &[
    Step { name: "CPython 3.14, 3.15 and a debug build", run: debian::bring_for_tests },
    Step { name: "the Pythons of this machine", run: found_pythons },
    Step { name: "tidiness", run: tidy },
    Step { name: "formatting", run: || cargo(&["fmt", "--all", "--check"], &[]) },
    Step { name: "clippy", run: clippy },
    Step { name: "documentation", run: documentation },
    Step { name: "without std", run: without_std },
    Step { name: "dependencies", run: dependencies::check },
    Step { name: "public items since the last release", run: dependencies::compare_with_release },
    Step { name: "the shared libraries", run: libraries },
    Step { name: "unit, property and integration tests", run: tests },
    Step { name: "the malloc library with every check of the heap", run: checked_malloc },
    Step { name: "programs with the malloc library", run: test_malloc::run_quick },
    Step { name: "threads and the global allocator with dynamic thread-locals", run: dynamic_tls },
    Step { name: "coroutines that move between threads", run: coroutines },
    Step { name: "documentation tests", run: documentation_tests },
    Step { name: "the crates outside of the workspace", run: package::pack_and_use },
    Step { name: "the wheel in every Python", run: wheel::build_and_test },
    Step { name: "programs on every choice of layers", run: layers::run_once },
    Step { name: "instructions of an operation", run: instructions::check },
    Step { name: "loom models", run: loom::run_bounded },
    Step { name: "AddressSanitizer", run: address_sanitizer },
    Step { name: "Miri", run: miri },
    Step { name: "CPython's own tests, the part that is quick", run: suite::run_part },
];

/// The features to test. Those of `benches` exclude each other, so they are left out.
const FEATURES: &[&str] = &[
    "--features",
    "obmalloc/serde",
    "--features",
    "obmalloc-global-alloc/allocator-api2-02,obmalloc-global-alloc/allocator-api2-04",
];

pub(crate) fn run(args: Args) -> Result<()> {
    let chosen = |step: &&Step| args.only.as_ref().is_none_or(|part| step.name.contains(part));
    let steps: Vec<_> = STEPS.iter().filter(chosen).collect();
    let names = || STEPS.iter().map(|step| step.name).collect::<Vec<_>>().join("\n  ");
    ensure!(!steps.is_empty(), "no step has that in its name; there are:\n  {}", names());
    let started = Instant::now();
    let mut total = Tally::default();
    for (place, step) in steps.iter().enumerate() {
        let elapsed = minutes(started.elapsed());
        println!("[{}/{}, {elapsed}] {}", place + 1, steps.len(), step.name);
        total = total + take(step);
    }
    println!("all steps took {}", minutes(started.elapsed()));
    println!("{total}");
    match total.failed {
        0 => Ok(()),
        _ => std::process::exit(1),
    }
}

fn take(step: &Step) -> Tally {
    let started = Instant::now();
    let tally = (step.run)().unwrap_or_else(|error| {
        println!("      {error:#}");
        Tally::one(false)
    });
    let verdict = if tally.failed == 0 { "ok" } else { "FAILED" };
    println!("      {verdict}: {tally} in {}", minutes(started.elapsed()));
    tally
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}

fn cargo(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Tally> {
    let mut command = workspace::cargo(arguments);
    command.envs(variables.iter().copied());
    Tally::of_command(command)
}

/// Prints the Pythons that later steps use, and fails if a Python that the user named is broken.
fn found_pythons() -> Result<Tally> {
    let search = pythons::search();
    debian::list(&search);
    let Search { pythons, silent } = search;
    if !pythons.iter().any(Python::is_supported) {
        bail!("no {} was found; name some in {}", pythons::SUPPORTED, pythons::NAMED);
    }
    let missing = if pythons::are_named() { silent.len() } else { 0 };
    Ok(Tally::of(1, missing))
}

fn tidy() -> Result<Tally> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("tidy");
    Tally::of_command(command)
}

fn clippy() -> Result<Tally> {
    let all = ["clippy", "--quiet", "--workspace", "--all-targets"];
    cargo(&[&all[..], FEATURES, &["--", "-D", "warnings"]].concat(), &[])
}

fn documentation() -> Result<Tally> {
    let all = ["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"];
    cargo(&[&all[..], FEATURES].concat(), &[("RUSTDOCFLAGS", "-D warnings")])
}

fn without_std() -> Result<Tally> {
    let packages = ["obmalloc-sync", "obmalloc-raw-mem", "obmalloc", "obmalloc-object-cache"];
    let check = |package| cargo(&["check", "--quiet", "-p", package, "--no-default-features"], &[]);
    packages.into_iter().map(check).sum()
}

fn libraries() -> Result<Tally> {
    for library in [workspace::build_library()?, workspace::build_malloc()?] {
        println!("      {}", library.display());
    }
    Ok(Tally::of(2, 0))
}

fn tests() -> Result<Tally> {
    let library = workspace::build_library()?;
    let targets = ["--lib", "--bins", "--tests", "--examples"];
    let all = ["test", "--workspace", "--no-fail-fast"];
    let malloc = workspace::build_malloc()?;
    let variables = [
        ("OBMALLOC_LIB", &*library.to_string_lossy()),
        ("OBMALLOC_MALLOC_LIB", &*malloc.to_string_lossy()),
    ];
    cargo(&[&all[..], FEATURES, &targets].concat(), &variables)
}

/// Tests a debug build of the malloc library, which ends the process if a heap is inconsistent.
fn checked_malloc() -> Result<Tally> {
    let library = workspace::build_library()?;
    let malloc = workspace::build("obmalloc-malloc", "dev", "libobmalloc_malloc.so")?;
    let variables = [
        ("OBMALLOC_LIB", &*library.to_string_lossy()),
        ("OBMALLOC_MALLOC_LIB", &*malloc.to_string_lossy()),
    ];
    cargo(&["test", "--no-fail-fast", "-p", "obmalloc-malloc", "--tests"], &variables)
}

fn dynamic_tls() -> Result<Tally> {
    let all = ["test", "--no-fail-fast", "--lib", "--tests"];
    let packages = ["-p", "obmalloc-global-alloc", "-p", "obmalloc-thread-heap"];
    cargo(
        &[&all[..], &packages, &["--features", "obmalloc-global-alloc/dynamic-tls"]].concat(),
        &[],
    )
}

const COROUTINE_RUNS: &str = "10";

/// Tests coroutines in release builds, which may keep more values in registers across a switch.
fn coroutines() -> Result<Tally> {
    let folder = workspace::target_dir().join("coroutines");
    let folder = folder.to_string_lossy();
    let default_profile = [
        ("CARGO_TARGET_DIR", &*folder),
        ("CARGO_PROFILE_RELEASE_LTO", "false"),
        ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ];
    let mut tally = Tally::default();
    for profile in [&[][..], &default_profile] {
        for features in [&[][..], &["--features", "dynamic-tls"]] {
            let arguments = ["test", "--release", "--no-fail-fast", "-p", "coroutines", "--lib"];
            let variables = [profile, &[("OBMALLOC_COROUTINE_RUNS", COROUTINE_RUNS)]].concat();
            tally = tally + cargo(&[&arguments[..], features].concat(), &variables)?;
        }
    }
    Ok(tally)
}

fn documentation_tests() -> Result<Tally> {
    cargo(&[&["test", "--workspace", "--no-fail-fast", "--doc"], FEATURES].concat(), &[])
}

/// Runs tests under AddressSanitizer, which the stable compiler offers behind an unstable flag.
fn address_sanitizer() -> Result<Tally> {
    let watched = |arguments: &[&str], of_the_harness: &[&str], options| {
        let mut command = workspace::cargo(&[&["test", "--no-fail-fast"], arguments].concat());
        Watcher::Address.watch(&mut command);
        command.arg("--").args(of_the_harness).env("ASAN_OPTIONS", options);
        Tally::of_command(command)
    };
    let threads =
        ["-p", "obmalloc-thread-heap", "--test", "lifecycle", "--test", "idle", "--test", "stress"];
    // These tests leak their heaps on purpose.
    let threads = watched(&threads, &[], "detect_leaks=0")?;
    let targets = ["--lib", "--test", "layouts", "--test", "local_heap", "--test", "gives_back"];
    // Some tests request more memory than can exist, and some check that memory is returned.
    let global = watched(
        &[&["-p", "obmalloc-global-alloc"], FEATURES, &targets].concat(),
        &[],
        "detect_leaks=1:quarantine_size_mb=8:allocator_may_return_null=1",
    )?;
    let packages = [
        "-p",
        "obmalloc-raw-mem",
        "-p",
        "obmalloc",
        "-p",
        "obmalloc-thread-heap",
        "-p",
        "obmalloc-object-cache",
    ];
    let targets = [
        "--lib", "--test", "model", "--test", "threads", "--test", "purging", "--test", "checkers",
    ];
    // The sanitizer itself needs more addresses than the limit in this test allows.
    let skipped = ["--skip", "in_a_limited_address_space_nearly_all_of_the_rest_can_be_used"];
    let others = watched(
        &[&targets[..], &packages].concat(),
        &skipped,
        "detect_leaks=1:allocator_may_return_null=1",
    )?;
    Ok(threads + global + others)
}

/// Runs the unit tests under Miri with strict provenance, if Miri is installed.
fn miri() -> Result<Tally> {
    if process::stdout_of(Command::new("cargo").args(["+nightly", "miri", "--version"])).is_err() {
        let how = "rustup +nightly component add miri";
        return Ok(Tally::skipped(format_args!("Miri is not installed ({how})")));
    }
    let mut command = Command::new("cargo");
    command.current_dir(workspace::root()).env("MIRIFLAGS", "-Zmiri-strict-provenance");
    command.args(["+nightly", "miri", "test", "--no-fail-fast", "--lib"]);
    command.args(["-p", "obmalloc-raw-mem", "-p", "obmalloc", "-p", "obmalloc-thread-heap"]);
    Tally::of_command(command)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::process;

    /// The features that a step of its own tests, or that the tests of another crate turn on.
    const ELSEWHERE: [&str; 4] = ["default", "std", "dynamic-tls", "backtrace"];

    #[test]
    fn every_feature_of_the_crates_is_tested() {
        let mut cargo = workspace::cargo(&["metadata", "--format-version", "1", "--no-deps"]);
        let metadata = process::stdout_of(&mut cargo).unwrap();
        let metadata: Value = serde_json::from_str(&metadata).unwrap();
        let mut features = 0;
        for package in metadata["packages"].as_array().unwrap() {
            let name = package["name"].as_str().unwrap();
            for feature in package["features"].as_object().unwrap().keys() {
                if !name.starts_with("obmalloc") || ELSEWHERE.contains(&&**feature) {
                    continue;
                }
                let full = format!("{name}/{feature}");
                let tested = FEATURES.iter().flat_map(|list| list.split(','));
                assert!(tested.into_iter().any(|one| one == full), "{full}");
                features += 1;
            }
        }
        assert!(features >= 3, "{features}");
    }
}
