//! The project's commands: `cargo xtask help` lists them.

mod bench;
mod debian;
mod layers;
mod loom;
mod mutants;
mod process;
mod python;
mod stress;
mod suite;
mod tally;
mod test_all;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// The commands of obmalloc.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures our allocators and their peers side by side.
    Bench(bench::Args),
    /// Runs programs on malloc alone, with pools, with caches: what each layer brings.
    Layers(layers::Args),
    /// Runs Python on our heap, compares it with other allocators, or says who serves what.
    Python(python::Args),
    /// Brings CPython 3.14 and 3.15 from Debian into target/pythons, and lists every Python found.
    Pythons(debian::Args),
    /// Runs every test there is; the last line counts them.
    TestAll(test_all::Args),
    /// Runs CPython's own tests with and without our heap, and compares test by test.
    TestPython(suite::Args),
    /// Explores every loom model, and prints a table of them.
    Loom(loom::Args),
    /// Measures how many small faults in the crates the tests notice.
    Mutants(mutants::Args),
    /// Checks facts about the repository that neither the compiler nor a test sees.
    Tidy(tidy::Args),
    /// Runs the stress test of the thread heaps for minutes, under what sees bad accesses.
    Stress(stress::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Bench(args) => bench::run(args),
        Command::Layers(args) => layers::run(args),
        Command::Python(args) => python::run(args),
        Command::Pythons(args) => debian::run(args),
        Command::TestAll(args) => test_all::run(args),
        Command::TestPython(args) => suite::run(args),
        Command::Loom(args) => loom::run(args),
        Command::Mutants(args) => mutants::run(args),
        Command::Tidy(args) => tidy::run(args, &commands()),
        Command::Stress(args) => stress::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The commands, for checks that documents name them right.
pub(crate) fn commands() -> clap::Command {
    Cli::command()
}
