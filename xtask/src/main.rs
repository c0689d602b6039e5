//! The commands for working on this project.

mod apt;
mod bench;
mod debian;
mod dependencies;
mod header;
mod install;
mod layers;
mod loom;
mod mutants;
mod package;
mod parallel;
mod peers;
mod process;
mod python;
mod report;
mod stress;
mod suite;
mod tally;
mod test_all;
mod test_malloc;
mod tidy;
mod wheel;
mod workspace;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// The commands of people who work on obmalloc.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures our allocators and other allocators side by side.
    Bench(bench::Args),
    /// Generates the C header of the malloc library.
    Header(header::Args),
    /// Installs the malloc library, its header and its file for pkg-config.
    Install(install::Args),
    /// Measures what each layer contributes: programs on malloc alone, with pools, with caches.
    Layers(layers::Args),
    /// Packs the crates as for a registry, and builds a program outside of the workspace with them.
    Package(package::Args),
    /// Runs a Python program on our heap, compares allocators, or reports which one is in force.
    Python(python::Args),
    /// Fetches CPython 3.14 and 3.15 from Debian into target/pythons, and lists every Python found.
    Pythons(debian::Args),
    /// Runs every test. The last line counts them.
    TestAll(test_all::Args),
    /// Runs programs with the malloc library and without it, and compares what they print.
    TestMalloc(test_malloc::Args),
    /// Runs CPython's own tests with and without our heap, and compares the result of each test.
    TestPython(suite::Args),
    /// Explores every loom model, and prints a table of them.
    Loom(loom::Args),
    /// Measures how many small faults in the crates the tests notice.
    Mutants(mutants::Args),
    /// Checks facts about the repository that neither the compiler nor a test sees.
    Tidy(tidy::Args),
    /// Runs the stress test of the thread heaps for minutes, under a tool that sees bad accesses.
    Stress(stress::Args),
    /// Builds a Python wheel with the program obmalloc and both libraries.
    Wheel(wheel::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Bench(args) => bench::run(args),
        Command::Header(args) => header::run(args),
        Command::Install(args) => install::run(args),
        Command::Layers(args) => layers::run(args),
        Command::Package(args) => package::run(args),
        Command::Python(args) => python::run(args),
        Command::Pythons(args) => debian::run(args),
        Command::TestAll(args) => test_all::run(args),
        Command::TestMalloc(args) => test_malloc::run(args),
        Command::TestPython(args) => suite::run(args),
        Command::Loom(args) => loom::run(args),
        Command::Mutants(args) => mutants::run(args),
        Command::Tidy(args) => tidy::run(args, &Cli::command()),
        Command::Stress(args) => stress::run(args),
        Command::Wheel(args) => wheel::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
