//! Measures the memory of allocators over time, in Rust and under Python.
//!
//! Each allocator runs in several ways: with its default settings, with the settings that return
//! the most memory, or with calls by the program that trim it. The workloads are in
//! `benches/src/memory` and `benches/python/memory.py`.

mod measured;
mod page;
mod way;

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use benches::memory::{Curve, NAMES};
use testkit::pythons::{self, Python, clean_command};

use super::{build, entrant, machine::Machine};
use crate::{peers::Peer, process, report, workspace};
use measured::{Curves, Measured};
use way::{Host, WAYS, Way};

/// Runs the workloads whose "host: name" contains `only`.
///
/// Writes `docs/memory-over-time.md` and its charts if all workloads ran.
pub(super) fn run(only: Option<&str>) -> Result<()> {
    let is_wanted = |host: Host, name: &str| {
        only.is_none_or(|part| format!("{}: {name}", host.name()).contains(part))
    };
    let wanted = |host| NAMES.into_iter().filter(move |name| is_wanted(host, name));
    let all: Vec<_> =
        Host::ALL.into_iter().flat_map(|host| wanted(host).map(move |name| (host, name))).collect();
    ensure!(!all.is_empty(), "no workload is named so; there are: {}", NAMES.join("; "));
    let machine = Machine::new();
    let python = python()?;
    let folder = tempfile::tempdir()?;
    let mut left_out = Vec::new();
    let commands = commands(&python, folder.path(), &mut left_out)?;
    let bar = report::progress_bar(all.len() * WAYS.len() / 2);
    let mut curves = Curves::new();
    for key @ (host, name) in all {
        for way in WAYS.iter().filter(|way| way.host == host) {
            bar.set_message(format!("{name} on {}", way.name));
            let program = commands.iter().find(|(one, _)| std::ptr::eq(*one, way));
            if let Some((_, program)) = program {
                match curve(&mut program.command(name)) {
                    Ok(curve) => curves.entry(key).or_default().push((way, curve)),
                    Err(error) => leave_out(&mut left_out, way, &error),
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let (major, minor, micro) = python.version;
    let python = format!("CPython {major}.{minor}.{micro}");
    let measured = Measured { machine, python, curves, left_out };
    println!("{}", page::text(&measured));
    if only.is_none() { page::write(&measured) } else { Ok(()) }
}

/// Adds a line about `way` with the last line of the error, unless there is such a line already.
fn leave_out(left_out: &mut Vec<String>, way: &Way, error: &anyhow::Error) {
    let text = format!("{error:#}");
    let why = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    let line = format!("{}, {}: {why}", way.name, way.host.name());
    if !left_out.contains(&line) {
        left_out.push(line);
    }
}

/// How a way is started.
struct Program {
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    trim: Option<&'static str>,
}

impl Program {
    fn command(&self, workload: &str) -> Command {
        let mut command = clean_command(&self.arguments[0]);
        command.args(&self.arguments[1..]).arg(workload).args(self.trim);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Builds what the ways need. If the allocator of another project does not build, adds it to
/// `left_out`.
fn commands(
    python: &Python,
    folder: &Path,
    left_out: &mut Vec<String>,
) -> Result<Vec<(&'static Way, Program)>> {
    let is_used = |name: &str| WAYS.iter().any(|way| way.worker == name);
    let entrants: Vec<_> = entrant::ALL.iter().filter(|one| is_used(one.worker)).copied().collect();
    build::all(&entrants, &[], folder, left_out)?;
    let mut commands = Vec::new();
    for way in &WAYS {
        match program(way, python, folder) {
            Ok(program) => commands.push((way, program)),
            Err(error) => leave_out(left_out, way, &error),
        }
    }
    Ok(commands)
}

fn program(way: &Way, python: &Python, folder: &Path) -> Result<Program> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut variables: Vec<_> = way.variables.iter().map(own).collect();
    let arguments = match way.host {
        Host::Rust => {
            let worker = folder.join(format!("worker-{}", way.worker));
            ensure!(worker.exists(), "its worker was not built");
            vec![text(&worker), "memory".to_owned()]
        }
        Host::Python => {
            let library = match way.worker {
                "cpython" => Some(workspace::build_library()?),
                "mimalloc-v3" => Some(Peer::MimallocV3.library()?),
                "jemalloc" => Some(Peer::Jemalloc.library()?),
                _ => None,
            };
            variables.extend(library.map(|path| ("LD_PRELOAD".to_owned(), text(&path))));
            variables.push(("PYTHONHASHSEED".to_owned(), "0".to_owned()));
            variables.push(("PYTHONWARNINGS".to_owned(), "ignore".to_owned()));
            let script = workspace::root().join("benches/python/memory.py");
            vec![text(&python.executable), text(&script), "run".to_owned()]
        }
    };
    Ok(Program { arguments, variables, trim: way.trim })
}

fn curve(command: &mut Command) -> Result<Curve> {
    let answer = process::stdout_of(command)?;
    serde_json::from_str(&answer).with_context(|| format!("{command:?} answered {answer:?}"))
}

/// Returns the newest Python that uses the C library of this machine.
fn python() -> Result<Python> {
    let fits = |python: &Python| python.is_supported() && !python.has_own_c_library();
    let newest = pythons::find().into_iter().filter(fits).max_by_key(|python| python.version);
    newest.context("no supported CPython was found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workloads_in_python_have_the_names_of_those_in_rust() {
        let script = workspace::root().join("benches/python/memory.py");
        let mut python = Command::new(python().unwrap().executable);
        let listed = process::stdout_of(python.arg(script).arg("list")).unwrap();
        assert_eq!(serde_json::from_str::<Vec<String>>(&listed).unwrap(), NAMES);
    }
}
