//! Checks facts about the repository that neither the compiler nor a test checks.

mod cfg;
mod cycles;
mod dependencies;
mod documents;
mod settings;
mod source;
mod subjects;
mod tree;
mod unsafety;
mod words;

use anyhow::{Result, bail};

use crate::tally::Tally;

use self::tree::Tree;

#[derive(clap::Args)]
pub(crate) struct Args {}

struct Check {
    name: &'static str,
    violations: fn(&Tree) -> Vec<String>,
}

const CHECKS: &[Check] = &[
    Check { name: "dependencies are those of ARCHITECTURE.md", violations: dependencies::check },
    Check { name: "`unsafe` is where ARCHITECTURE.md says", violations: unsafety::check },
    Check { name: "documents name paths and commands that exist", violations: documents::check },
    Check { name: "docs/settings.md lists every variable", violations: settings::check },
    Check { name: "files form no cycle", violations: cycles::check },
    Check { name: "no `cfg` inside a function", violations: cfg::check },
    Check { name: "no dropped word", violations: words::check },
    Check { name: "commit subjects are short", violations: subjects::check },
];

pub(crate) fn run(_: Args, commands: &clap::Command) -> Result<()> {
    let tally = check_all(commands)?;
    if tally.failed > 0 {
        bail!("{} of {} checks failed", tally.failed, CHECKS.len());
    }
    Ok(())
}

pub(crate) fn check_all(commands: &clap::Command) -> Result<Tally> {
    let tree = Tree::of_repository(commands)?;
    let mut tally = Tally::default();
    for check in CHECKS {
        let violations = (check.violations)(&tree);
        println!("      {}: {}", if violations.is_empty() { "ok" } else { "FAILED" }, check.name);
        for violation in &violations {
            println!("        {violation}");
        }
        tally = tally + Tally::one(violations.is_empty());
    }
    Ok(tally)
}
