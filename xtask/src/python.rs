//! Python on our heap, beside other allocators, or asked who serves it.
//!
//! ```text
//!   --with, or python3 ─► Python ─┬─► run        the program, on our heap
//!                                 ├─► compare    the program on CPython's, on malloc, on ours: a table
//!                                 └─► doctor     who serves which domain, and why not we
//! ```

mod compare;
mod comparison;
mod doctor;
mod measure;
mod programs;
pub(crate) mod report;
mod run;
mod side;

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Context, Result};
use testkit::pythons::{self, Python};

/// The arguments of `cargo xtask python`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The Python to use; may be given several times [default: python3 on the PATH]
    #[arg(long, value_name = "PATH")]
    with: Vec<PathBuf>,
    /// Runs the program on CPython's own allocator, on malloc and on ours, and prints a table.
    #[arg(long)]
    compare: bool,
    /// How often a comparison runs the program on each of them.
    #[arg(long, value_name = "N", default_value_t = 5, requires = "compare")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Prints what our heap served, and its figures, when the program ends.
    #[arg(long, conflicts_with = "compare")]
    stats: bool,
    /// Says for each Python found which allocator serves which domain, and what undid ours.
    #[arg(long, conflicts_with_all = ["compare", "stats"])]
    doctor: bool,
    /// What Python is given [default: each program of examples/python]
    #[arg(last = true)]
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

/// The Pythons that the user named.
pub(crate) fn named(paths: &[PathBuf]) -> Result<Vec<Python>> {
    let ask = |path: &PathBuf| {
        Python::ask(path)
            .with_context(|| format!("{} is no CPython 3 that answers", path.display()))
    };
    paths.iter().map(ask).collect()
}

/// `python3` on the `PATH`, or another one where that one is not for us.
fn default() -> Result<Python> {
    let on_path = Python::ask("python3".as_ref()).filter(Python::is_supported);
    let any = || pythons::find().into_iter().find(Python::is_supported);
    on_path
        .or_else(any)
        .with_context(|| format!("no {} was found; name one with --with", pythons::SUPPORTED))
}
