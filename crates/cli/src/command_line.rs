//! The command line of `obmalloc`.

#![forbid(unsafe_code)]

use std::env;

use clap::{CommandFactory, Parser, Subcommand};

use crate::{compare, doctor, environment, failure::Result, live, manual, run, target};

/// Runs Python and other programs on the obmalloc heap.
#[derive(Debug, Parser)]
#[command(name = "obmalloc", version, max_term_width = 100)]
#[command(after_help = "Exit codes: that of the program (run), or\n  \
    0    done, or the answer is yes\n  \
    1    the answer is no\n  \
    2    the command line is wrong\n  \
    125  obmalloc failed, or --strict ended a CPython without the heap\n  \
    126  the program cannot be run, or cannot have the heap\n  \
    127  there is no such program")]
struct CommandLine {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Run(run::Args),
    Compare(compare::Args),
    Doctor(doctor::Args),
    Env(environment::EnvArgs),
    Path(environment::PathArgs),
    Ps(live::PsArgs),
    Stats(live::StatsArgs),
    Trim(live::TrimArgs),
    Completions(manual::CompletionsArgs),
    #[command(hide = true)]
    Man(manual::ManArgs),
}

/// Returns a description of the command line, for completions and manual pages.
pub fn command() -> clap::Command {
    CommandLine::command()
}

/// Parses the command line of this process, and runs the command that it names.
///
/// Ends the process with code 2 if the command line is wrong.
///
/// # Errors
///
/// Fails as the command does.
pub fn obey() -> Result<()> {
    let line = target::with_separate_values(env::args_os().collect(), &command());
    match CommandLine::parse_from(line).action {
        Action::Run(args) => run::run(&args),
        Action::Compare(args) => compare::run(&args),
        Action::Doctor(args) => doctor::run(&args),
        Action::Env(args) => environment::env(&args),
        Action::Path(args) => environment::path(&args),
        Action::Ps(args) => live::ps(&args),
        Action::Stats(args) => live::stats(&args),
        Action::Trim(args) => live::trim(&args),
        Action::Completions(args) => manual::completions(&args, command()),
        Action::Man(args) => manual::man(&args, command()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_has_no_contradiction() {
        super::command().debug_assert();
    }
}
