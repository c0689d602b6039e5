//! Checks the licences and sources of the dependencies, and what a release would break.

use std::process::Command;

use anyhow::Result;

use crate::{process, tally::Tally, wheel::Tools, workspace};

/// Checks the dependencies by the rules of `deny.toml`.
///
/// The list of known faults is at GitHub. Where it cannot be fetched, the other rules are checked.
pub(crate) fn check() -> Result<Tally> {
    let tools = match Tools::install() {
        Ok(tools) => tools,
        Err(error) => {
            return Ok(Tally::skipped(format_args!("DEPENDENCIES WERE NOT CHECKED: {error:#}")));
        }
    };
    let deny = |arguments: &[&str]| -> Result<Command> {
        let mut deny = tools.command("cargo-deny")?;
        deny.current_dir(workspace::root()).args(["--color", "never"]).args(arguments);
        Ok(deny)
    };
    let rules = Tally::of_command(deny(&["check", "bans", "licenses", "sources"])?)?;
    let fetched = process::run(deny(&["fetch", "db"])?, |_| ())?;
    let faults = match fetched.success {
        true => Tally::of_command(deny(&["check", "--disable-fetch", "advisories"])?)?,
        false => Tally::skipped("KNOWN FAULTS OF DEPENDENCIES WERE NOT LOOKED UP: no GitHub"),
    };
    Ok(rules + faults)
}

/// Compares the public items with those of the last release.
pub(crate) fn compare_with_release() -> Result<Tally> {
    let tags = workspace::git(&["tag", "--list", "v*", "--sort=-version:refname"])?;
    let Some(release) = tags.lines().next() else {
        return Ok(Tally::skipped("THE PUBLIC ITEMS WERE NOT COMPARED: there is no release yet"));
    };
    if process::stdout_of(Command::new("cargo").args(["semver-checks", "--version"])).is_err() {
        let how = "cargo install --locked cargo-semver-checks";
        return Ok(Tally::skipped(format_args!("THE PUBLIC ITEMS WERE NOT COMPARED: {how}")));
    }
    let mut compare = workspace::cargo(&["semver-checks", "--workspace", "--baseline-rev"]);
    compare.arg(release);
    Tally::of_command(compare)
}
