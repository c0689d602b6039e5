//! Runs Python on our heap, compares it with other allocators, or says who serves what.

mod compare;
mod doctor;
mod measure;
mod ratio;
mod report;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use testkit::pythons::{self, Python};

use crate::workspace;

/// The arguments of `cargo xtask python`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A Python to use; may be given again. Without it, `python3` on the PATH.
    #[arg(long)]
    with: Vec<PathBuf>,
    /// Runs the program in turn on CPython's own allocator, on malloc and on ours, and compares.
    #[arg(long, conflicts_with_all = ["stats", "doctor"])]
    compare: bool,
    /// Rounds of a comparison.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Prints the heap's statistics at the end.
    #[arg(long, conflicts_with = "doctor")]
    stats: bool,
    /// Says for each domain which allocator serves it, and what undid the installation.
    #[arg(long)]
    doctor: bool,
    /// What Python is to run. Without it, the programs in `examples/python`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let library = workspace::build_library()?;
    if args.doctor {
        let pythons = if args.with.is_empty() { pythons::find() } else { named(&args.with)? };
        return doctor::run(&library, &pythons);
    }
    let programs = Program::chosen(&args.arguments)?;
    for python in chosen(&args.with)? {
        if args.compare {
            compare::run(&library, &python, &programs, args.rounds)?;
        } else {
            run_each(&library, &python, &programs, args.stats)?;
        }
    }
    Ok(())
}

/// What Python is to run.
pub(crate) struct Program {
    name: String,
    arguments: Vec<String>,
}

impl Program {
    /// The program that the arguments name, or all bundled ones.
    fn chosen(arguments: &[String]) -> Result<Vec<Self>> {
        if arguments.is_empty() {
            return Self::bundled();
        }
        Ok(vec![Self { name: arguments.join(" "), arguments: arguments.to_vec() }])
    }

    fn bundled() -> Result<Vec<Self>> {
        let folder = workspace::root().join("examples/python").canonicalize()?;
        let entries = folder.read_dir()?.collect::<Result<Vec<_>, _>>()?;
        let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "py"));
        paths.sort();
        ensure!(!paths.is_empty(), "no programs in {}", folder.display());
        Ok(paths.iter().map(|path| Self::of_file(path)).collect())
    }

    fn of_file(path: &Path) -> Self {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, arguments: vec![path.to_string_lossy().into_owned()] }
    }

    /// The command that runs it, in an environment without allocators.
    fn command(&self, python: &Python) -> Command {
        let mut command = pythons::clean_command(&python.executable);
        command.args(&self.arguments).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// The Pythons that were named, or the one on the PATH, or the first that is found.
fn chosen(with: &[PathBuf]) -> Result<Vec<Python>> {
    if !with.is_empty() {
        return named(with);
    }
    let on_path = Python::ask(Path::new("python3")).filter(Python::is_supported);
    let found = on_path.or_else(|| pythons::find().into_iter().find(Python::is_supported));
    Ok(vec![found.context("no supported CPython is found; name one with --with")?])
}

fn named(with: &[PathBuf]) -> Result<Vec<Python>> {
    let ask = |path: &PathBuf| Python::ask(path).with_context(|| not_python(path));
    with.iter().map(ask).collect()
}

fn not_python(path: &Path) -> String {
    format!("{} is no CPython that answers", path.display())
}

/// Runs each program on our heap, in the terminal.
fn run_each(library: &Path, python: &Python, programs: &[Program], stats: bool) -> Result<()> {
    for program in programs {
        let mut command = program.command(python);
        command.env("LD_PRELOAD", library);
        if stats {
            command.env("OBMALLOC_STATS", "1");
        }
        let status = command.status().with_context(|| format!("cannot start {}", python.name()))?;
        if !status.success() {
            bail!("{} ended with {status}", program.name);
        }
    }
    Ok(())
}
