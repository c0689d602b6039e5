//! Runs programs with the malloc library and without it, and compares what they print.
//!
//! Each program is a script of bash in `test_malloc/programs`. It runs twice in an empty folder. Its
//! output on stdout and its exit code must be the same both times.

mod fetched;
mod programs;
mod trial;

use std::path::PathBuf;

use anyhow::{Result, ensure};

use self::{
    programs::{PROGRAMS, Program},
    trial::{Libraries, Size},
};
use crate::{process, tally::Tally, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Runs only the programs that take a few seconds, with less to do.
    #[arg(long)]
    quick: bool,
    /// Runs only this program, for example git. May be repeated.
    #[arg(long, value_name = "PROGRAM")]
    only: Vec<String>,
    /// Tests this library instead of the one in the repository.
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    process::kill_children_when_interrupted()?;
    for name in &args.only {
        let names = PROGRAMS.map(|program| program.name).join(", ");
        ensure!(PROGRAMS.iter().any(|it| it.name == name), "{name} is none of {names}");
    }
    let size = if args.quick { Size::Quick } else { Size::Full };
    let is_chosen = |program: &&Program| match args.only.is_empty() {
        true => size == Size::Full || program.is_quick,
        false => args.only.iter().any(|name| name == program.name),
    };
    let malloc = match args.library {
        Some(library) => library.canonicalize()?,
        None => workspace::build_malloc()?,
    };
    let tally = run_all(PROGRAMS.iter().filter(is_chosen), malloc, size)?;
    println!("{tally}");
    match tally.failed {
        0 => Ok(()),
        _ => std::process::exit(1),
    }
}

/// Runs the quick programs as a step of all tests.
pub(crate) fn run_quick() -> Result<Tally> {
    let quick = PROGRAMS.iter().filter(|program| program.is_quick);
    run_all(quick, workspace::build_malloc()?, Size::Quick)
}

fn run_all<'a>(
    programs: impl Iterator<Item = &'a Program>,
    malloc: PathBuf,
    size: Size,
) -> Result<Tally> {
    let libraries = Libraries { malloc, cpython: workspace::build_library()? };
    let mut tally = Tally::default();
    for program in programs {
        tally = tally + trial::run(program, &libraries, size);
    }
    Ok(tally)
}
