//! Runs Python programs on our heap, compares allocators, or reports which one is in use.

mod compare;
mod doctor;
mod programs;
mod run;

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Context, Result};
use testkit::pythons::{self, Python};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The Python to use. May be repeated [default: python3 on the PATH]
    #[arg(long, value_name = "PATH")]
    with: Vec<PathBuf>,
    /// Runs the program on CPython's own allocator, on malloc and on ours, and prints tables.
    #[arg(long)]
    compare: bool,
    /// How often a comparison runs the program on each allocator.
    #[arg(long, value_name = "N", default_value_t = 5, requires = "compare")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Prints the statistics of our heap when the program ends.
    #[arg(long, conflicts_with = "compare")]
    stats: bool,
    /// Tells for each Python which allocator serves which domain, and why ours does not.
    #[arg(long, conflicts_with_all = ["compare", "stats"])]
    doctor: bool,
    /// The arguments of Python: a program and its arguments, or, after --, an option of Python
    /// [default: each program of examples/python]
    #[arg(trailing_var_arg = true)]
    args: Vec<OsString>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    if args.doctor {
        let pythons = if args.with.is_empty() { pythons::find() } else { named(&args.with)? };
        return doctor::run(&pythons, &args.args);
    }
    let pythons = if args.with.is_empty() { vec![default()?] } else { named(&args.with)? };
    let programs = programs::chosen(&args.args)?;
    if args.compare {
        compare::run(&pythons, &programs, args.rounds.into())
    } else {
        run::run(&pythons, &programs, args.stats)
    }
}

/// Returns the Pythons at `paths`.
///
/// # Errors
///
/// Fails if a path does not lead to a CPython 3.
pub(crate) fn named(paths: &[PathBuf]) -> Result<Vec<Python>> {
    let ask = |path: &PathBuf| {
        Python::ask(path)
            .with_context(|| format!("{} does not answer as a CPython 3 does", path.display()))
    };
    paths.iter().map(ask).collect()
}

/// Returns the `python3` on the `PATH`, or another Python if ours does not support that version.
fn default() -> Result<Python> {
    let on_path = Python::ask("python3".as_ref()).filter(Python::is_supported);
    let any = || pythons::find().into_iter().find(Python::is_supported);
    on_path
        .or_else(any)
        .with_context(|| format!("no {} was found; name one with --with", pythons::SUPPORTED))
}
