//! Shows which allocator serves each of CPython's domains, and the reason if it is not ours.

#![forbid(unsafe_code)]

mod findings;
mod python;
mod watch;

use std::ffi::OsString;

use crate::{
    failure::{Failure, NO, Result},
    libraries::Libraries,
    output::print,
    processes::Process,
    program, python as choice,
};

pub use self::findings::{Finding, Findings};
pub use self::python::examine;

/// Shows whether Python processes use our heap, and if not, why.
///
/// With PID, examines the running process with this id. With COMMAND, runs the command and examines
/// all Python processes that the command starts. Without either, starts each Python interpreter
/// that `--python` names, lets the interpreter start a child process, and examines both processes.
///
/// The exit code is 1 if an examined process does not use our heap. It is also 1 if we cannot find
/// out whether a process uses our heap, or if there is no process to examine.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A Python to examine. May be repeated [default: the one that `obmalloc run` uses]
    #[arg(long, value_name = "PYTHON", conflicts_with_all = ["pid", "command"])]
    python: Vec<OsString>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// A running process.
    #[arg(value_name = "PID", conflicts_with = "command")]
    pid: Option<u32>,
    /// A command to run. When the command has ended, `obmalloc doctor` prints a table of all Python
    /// processes that the command has started. A Python process that ends within a few milliseconds
    /// may be missing. Ctrl-C ends the command, but not `obmalloc doctor`, and a SIGTERM is passed
    /// on to the command. In both cases, `obmalloc doctor` still prints the table.
    #[arg(last = true, value_names = ["COMMAND", "ARGS"])]
    command: Vec<OsString>,
}

/// Examines the processes that `args` name, and prints a table or JSON.
///
/// # Errors
///
/// Fails with the code [`NO`] if a Python does not use our heap.
pub fn run(args: &Args) -> Result<()> {
    let libraries = Libraries::find()?;
    let findings = match args.pid {
        Some(pid) => Findings::new(vec![running(pid)?]),
        None if !args.command.is_empty() => watch::examine(&args.command, &libraries)?,
        None => pythons(&args.python, &libraries, args.json)?,
    };
    if args.json {
        print(findings.json() + "\n")?;
    } else {
        let library = libraries.cpython().display();
        print(format!("library: {library}\n{}\n", findings.table()))?;
    }
    findings.verdict()
}

fn pythons(named: &[OsString], libraries: &Libraries, json: bool) -> Result<Findings> {
    let mut pythons = Vec::new();
    for name in named {
        pythons.push(program::find(name)?);
    }
    if pythons.is_empty() {
        let choice = choice::choose()?;
        if !json {
            print(format!("Python:  {} ({})\n", choice.path.display(), choice.because))?;
        }
        pythons.push(choice.path);
    }
    let mut findings = Vec::new();
    for path in pythons {
        findings.extend(examine(&path, &path.display().to_string(), libraries, &[])?);
    }
    Ok(Findings::new(findings))
}

/// Describes the running process `pid`.
///
/// # Errors
///
/// Fails if there is no such process, or if this user may not examine it.
fn running(pid: u32) -> Result<Finding> {
    let process = Process::read(pid).ok_or_else(|| {
        Failure::new(format!("cannot look at process {pid}"))
            .because("there is no such process, or it belongs to another user")
            .code(NO)
    })?;
    Ok(Finding::of_process(&process))
}
