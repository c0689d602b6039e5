//! Builds a Python wheel with the program `obmalloc` and both libraries, and tests it.

mod build;
mod tools;
mod trial;

use anyhow::Result;

pub(crate) use self::tools::Tools;
use crate::{process, tally::Tally};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Installs the wheel into environments of every Python found, and runs programs there.
    #[arg(long)]
    test: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    process::kill_children_when_interrupted()?;
    let wheel = build::wheel(&Tools::install()?)?;
    println!("{}", wheel.display());
    if args.test {
        let tally = trial::every_python(&wheel)?;
        println!("{tally}");
        anyhow::ensure!(tally.failed == 0, "the wheel does not work");
    }
    Ok(())
}

/// Builds and tests the wheel, if the tools for that can be installed.
pub(crate) fn build_and_test() -> Result<Tally> {
    let tools = match Tools::install() {
        Ok(tools) => tools,
        Err(error) => {
            return Ok(Tally::skipped(format_args!(
                "THE WHEEL WAS NEITHER BUILT NOR TESTED: {error:#}"
            )));
        }
    };
    trial::every_python(&build::wheel(&tools)?)
}
