//! Explores every loom model, and prints a table of the models.
//!
//! A model is a test that prints the line `model NAME VERDICT EXECUTIONS THREADS MILLISECONDS`.

use std::{env, process::Command};

use anyhow::{Result, ensure};

use crate::{process, report::Table, tally::Tally, workspace};

const PACKAGES: &[&str] = &[
    "obmalloc",
    "obmalloc-thread-heap",
    "obmalloc-allocator-api",
    "obmalloc-object-cache",
    "obmalloc-status",
];

pub(crate) const BOUND: &str = "3";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Explores without a bound on preemptions.
    #[arg(long)]
    thorough: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let tally = explore((!args.thorough).then_some(BOUND))?;
    ensure!(tally.failed == 0, "{tally}");
    Ok(())
}

pub(crate) fn run_bounded() -> Result<Tally> {
    explore(Some(BOUND))
}

/// The line that a model prints.
#[derive(Debug, PartialEq, Eq)]
struct Model {
    name: String,
    verdict: String,
    executions: usize,
    threads: String,
    milliseconds: String,
}

impl Model {
    fn of_line(line: &str) -> Option<Self> {
        // The line begins with "test NAME ... " from the test harness.
        let mut words = line.split_whitespace().skip_while(|word| *word != "model").skip(1);
        let mut next = || words.next().map(str::to_owned);
        Some(Self {
            name: next()?,
            verdict: next()?,
            executions: next()?.parse().ok()?,
            threads: next()?,
            milliseconds: next()?,
        })
    }

    /// Returns true if loom tried several orders, or rejected the model as expected.
    fn explored(&self) -> bool {
        self.verdict == "rejected" || self.executions > 1
    }
}

fn explore(bound: Option<&str>) -> Result<Tally> {
    let mut models = Vec::new();
    let finished = process::run(command(bound), |line| {
        if let Some(model) = Model::of_line(line) {
            println!("      {} {}: {} executions", model.name, model.verdict, model.executions);
            models.push(model);
        }
    })?;
    println!("{}", table(&models, bound));
    if !finished.success {
        println!("{}", finished.output);
        let tally = Tally::of_output(&finished.output);
        return Ok(if tally.failed == 0 { tally + Tally::one(false) } else { tally });
    }
    ensure!(!models.is_empty(), "no model was explored");
    let unexplored = models.iter().filter(|model| !model.explored()).inspect(|model| {
        println!("      {}: one execution explores nothing", model.name);
    });
    let failed = unexplored.count();
    Ok(Tally::of(models.len() - failed, failed))
}

fn command(bound: Option<&str>) -> Command {
    let mut command = workspace::cargo(&["test", "--release", "--no-fail-fast", "--lib"]);
    command.env("RUST_BACKTRACE", "0");
    command.env("CARGO_TARGET_DIR", workspace::target_dir().join("loom"));
    configure(&mut command, bound);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    command.args(["--", "--nocapture", "--test-threads", "2"]);
    command
}

pub(crate) fn configure(cargo: &mut Command, bound: Option<&str>) {
    cargo
        .env("RUSTFLAGS", "--cfg loom")
        // The models run only for seconds, so a quick build matters more than fast code.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    // Variables of the user could set another bound.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("LOOM_") {
            cargo.env_remove(name);
        }
    }
    if let Some(bound) = bound {
        cargo.env("LOOM_MAX_PREEMPTIONS", bound);
    }
}

fn table(models: &[Model], bound: Option<&str>) -> Table {
    let bound = bound.map_or("none".to_owned(), |bound| format!("{bound} preemptions"));
    let mut table = Table::new(["model", "threads", "executions", "ms", "verdict", "bound"]);
    for model in models {
        let executions = model.executions.to_string();
        let Model { name, threads, milliseconds, verdict, .. } = model;
        table.add([name, threads, &executions, milliseconds, verdict, &bound]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_model_is_found_behind_that_of_the_harness() {
        let line = "test inbox::tests::a ... model inbox::tests::a accepted 21 2 5";
        let model = Model::of_line(line).unwrap();
        assert_eq!((model.name.as_str(), model.executions), ("inbox::tests::a", 21));
        assert!(model.explored());
        let line = "test a_model ... model a_model rejected 2 2 0";
        assert_eq!(Model::of_line(line).unwrap().name, "a_model");
        assert_eq!(Model::of_line("test a_model ... ok"), None);
    }

    #[test]
    fn an_accepted_model_must_try_more_than_one_order() {
        assert!(!Model::of_line("model a accepted 1 1 0").unwrap().explored());
        assert!(Model::of_line("model a rejected 1 1 0").unwrap().explored());
    }
}
