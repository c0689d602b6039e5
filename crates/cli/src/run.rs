//! Starts a program on the heap, in place of this process.

#![forbid(unsafe_code)]

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt,
    process::Command,
};

use crate::{
    failure::{CANNOT_RUN, Failure, Result},
    libraries::{self, Libraries},
    preload, program, python,
    target::{Invocation, Target},
};

/// Runs a program on the obmalloc heap, in place of this process.
///
/// The program keeps the process id, the signals and the exit code.
#[derive(Clone, Debug, clap::Args)]
#[command(override_usage = "obmalloc run [OPTIONS] PROGRAM [ARGS]...\n       \
    obmalloc run [OPTIONS] -m MODULE [ARGS]...\n       \
    obmalloc run [OPTIONS] -c CODE [ARGS]...\n       \
    obmalloc run [OPTIONS] -- COMMAND [ARGS]...")]
pub struct Args {
    /// Writes statistics at exit: to stderr, or to a file. %p in PATH is the process id, and a
    /// PATH that ends with .json is written as JSON.
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "-")]
    stats: Option<OsString>,
    /// Serves malloc and operator new of the whole process as well.
    #[arg(long)]
    malloc: bool,
    /// Refuses a CPython that is newer than the library was tested with.
    #[arg(long, conflicts_with = "quiet")]
    strict: bool,
    /// Says nothing if the heap cannot be installed.
    #[arg(long)]
    quiet: bool,
    /// Creates no status page, so `ps`, `stats` and `trim` do not find the program.
    #[arg(long)]
    no_status: bool,
    /// Prints the command and the variables first.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    target: Target,
}

/// Replaces this process by the program that `args` names.
///
/// # Errors
///
/// Fails if the program cannot be found, cannot have the heap, or cannot be started. Otherwise it
/// does not return.
pub fn run(args: &Args) -> Result<()> {
    let invocation = args.target.invocation(&env::args_os().collect::<Vec<_>>())?;
    if let Some(remark) = program::check(&invocation.path)?
        && !args.quiet
    {
        eprintln!("obmalloc: {remark}");
    }
    let mut command = preloaded(&invocation, &Libraries::find()?, args.malloc)?;
    if let Some(place) = &args.stats {
        command.env("OBMALLOC_STATS", if place == "-" { OsStr::new("1") } else { place });
    }
    for (flag, word) in [(args.strict, "strict"), (args.quiet, "quiet")] {
        if flag {
            command.env("OBMALLOC", word);
        }
    }
    if !args.no_status && env::var_os("OBMALLOC_STATUS").is_none() {
        command.env("OBMALLOC_STATUS", "on");
    }
    if args.verbose {
        eprintln!("obmalloc: {command:?}");
    }
    let error = command.exec();
    Err(Failure::new(format!("cannot run {}", invocation.path.display()))
        .because(reason(&invocation, &error))
        .code(CANNOT_RUN))
}

fn reason(invocation: &Invocation, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOEXEC) => {
            format!("{} has no first line such as #!/bin/sh", invocation.path.display())
        }
        _ => error.to_string(),
    }
}

/// Returns a command that starts `invocation` with the library, and with the malloc library too if
/// `malloc` is true.
///
/// # Errors
///
/// Fails if a library is missing, or if the loader cannot be told its path.
pub fn preloaded(invocation: &Invocation, libraries: &Libraries, malloc: bool) -> Result<Command> {
    let mut list = vec![libraries.cpython()];
    if malloc {
        list.push(libraries.malloc()?);
    }
    let value = preload::value(&list, env::var_os(preload::VARIABLE).as_deref())?;
    let mut command = Command::new(&invocation.path);
    command.arg0(&invocation.name).args(&invocation.args).env(preload::VARIABLE, value);
    for ours in [python::VARIABLE, libraries::VARIABLE] {
        command.env_remove(ours);
    }
    Ok(command)
}
