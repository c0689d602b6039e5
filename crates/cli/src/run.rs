//! Replaces this process with a program that uses our heap.

#![forbid(unsafe_code)]

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    process::Command,
};

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::{
    failure::{CANNOT_RUN, Failure, Result},
    libraries::{self, Libraries},
    preload, program, python,
    system::pass_on_ignored_sigpipe,
    target::{Invocation, Target},
};

/// Runs a program on the obmalloc heap, in place of this process.
///
/// The program has the process id of this command, gets its signals, and determines its exit code.
#[derive(Clone, Debug, clap::Args)]
#[command(override_usage = "obmalloc run [OPTIONS] PROGRAM [ARGS]...\n       \
    obmalloc run [OPTIONS] -m MODULE [ARGS]...\n       \
    obmalloc run [OPTIONS] -c CODE [ARGS]...\n       \
    obmalloc run [OPTIONS] -- COMMAND [ARGS]...")]
#[command(after_help = "Examples:\n  \
    obmalloc run prog.py --port 8000\n  \
    obmalloc run -m pytest -x\n  \
    obmalloc run --stats=stats-%p.json -- gunicorn -w 2 app:app")]
pub struct Args {
    /// Writes statistics at exit to the file PATH, or to stderr if PATH is omitted. %p in PATH
    /// stands for the process id. A PATH that ends with .json selects JSON.
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "-", value_parser = OsStringValueParser::new().try_map(place))]
    stats: Option<OsString>,
    /// Also serves malloc and operator new of the whole process.
    #[arg(long)]
    malloc: bool,
    /// Refuses to run a program without the heap. A program that clearly cannot use the heap is not
    /// started. When a CPython 3 starts, the preloaded library ends the process with code 125 if it
    /// does not install the heap, or if this CPython is newer than the tested versions.
    #[arg(long, group = "switch")]
    strict: bool,
    /// Prints no message if the heap cannot be installed.
    #[arg(long, group = "switch")]
    quiet: bool,
    /// Checks each block for overflows, double frees and other misuse, as PYTHONMALLOC=debug does.
    #[arg(long, group = "switch")]
    debug: bool,
    /// Makes requests beyond this number of bytes fail with MemoryError. Examples: 512K, 64M, 2G.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    limit: Option<String>,
    /// Creates no status page, so `ps`, `stats` and `trim` do not find the program.
    #[arg(long)]
    no_status: bool,
    /// Prints the command and its environment variables before it is started.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    target: Target,
}

/// Replaces this process with the program that `args` names. Returns only if this fails.
///
/// # Errors
///
/// Fails if the program cannot be found, cannot use the heap, or cannot be started.
pub fn run(args: &Args) -> Result<()> {
    let invocation = args.target.invocation(&env::args_os().collect::<Vec<_>>())?;
    if let Some(remark) = program::check(&invocation.path)? {
        if args.strict {
            return Err(Failure::new("cannot run without the heap, which --strict requires")
                .because(&remark)
                .code(remark.exit_code()));
        }
        if !remark.is_printed_by_library() {
            say(&remark.to_string(), args);
        }
    }
    // With --strict, the library itself reports this and ends the process.
    if let Some(name) = other_allocator(env::var_os("PYTHONMALLOC"))
        && !args.strict
    {
        let name = name.display();
        say(&format!("PYTHONMALLOC={name} is set, so CPython does not use the heap"), args);
    }
    let mut command = preloaded(&invocation, &Libraries::find()?, args.malloc)?;
    if let Some(place) = &args.stats {
        command.env("OBMALLOC_STATS", if place == "-" { OsStr::new("1") } else { place });
    }
    if let Some(limit) = &args.limit {
        command.env("OBMALLOC_LIMIT", limit);
    }
    for (flag, word) in [(args.strict, "strict"), (args.quiet, "quiet"), (args.debug, "debug")] {
        if flag {
            command.env("OBMALLOC", word);
        }
    }
    if args.no_status {
        command.env(STATUS, "off");
    } else {
        request_status(&mut command);
    }
    if args.verbose {
        eprintln!("obmalloc: {command:?}");
    }
    let error = command.exec();
    Err(Failure::new(format!("cannot run {}", invocation.path.display()))
        .because(reason(&invocation, &error))
        .code(CANNOT_RUN))
}

/// The variable that makes the library create a status page.
const STATUS: &str = "OBMALLOC_STATUS";

/// Makes the program of `command` create a status page, unless the user has chosen otherwise.
pub(crate) fn request_status(command: &mut Command) {
    // The library treats an empty value as unset.
    if env::var_os(STATUS).is_none_or(|value| value.is_empty()) {
        command.env(STATUS, "on");
    }
}

/// Returns `text` if the library accepts it as a number of bytes.
fn size(text: &str) -> Result<String, &'static str> {
    let number = text.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G']).unwrap_or(text);
    let is_number = number.parse::<u64>().is_ok_and(|number| number > 0);
    let has_digits_only = number.bytes().all(|byte| byte.is_ascii_digit());
    match is_number && has_digits_only {
        true => Ok(text.to_owned()),
        false => Err("a size is a whole number such as 1000000, 512K, 64M or 2G"),
    }
}

/// The words that switch statistics on or off, in upper or lower case.
const SWITCHES: [&str; 9] = ["-", "0", "false", "no", "off", "1", "true", "yes", "on"];

/// Returns `value` if the library accepts it as a place for statistics.
fn place(value: OsString) -> Result<OsString, &'static str> {
    let is_switch = SWITCHES.iter().any(|word| value.eq_ignore_ascii_case(word));
    let is_path = value.as_bytes().iter().any(|byte| b"/.%".contains(byte));
    match is_switch || is_path {
        true => Ok(value),
        false => Err("a path has a slash, a dot or %p, such as ./stats or stats-%p.json"),
    }
}

fn say(remark: &str, args: &Args) {
    if !args.quiet {
        eprintln!("obmalloc: {remark}");
    }
}

/// The values of `PYTHONMALLOC` with which the library installs the heap.
const HEAP_NAMES: [&str; 5] = ["", "default", "debug", "pymalloc", "pymalloc_debug"];

/// Returns the value of `PYTHONMALLOC` if it names an allocator that the heap does not replace.
fn other_allocator(choice: Option<OsString>) -> Option<OsString> {
    choice.filter(|name| !HEAP_NAMES.iter().any(|heap| name == heap))
}

fn reason(invocation: &Invocation, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOEXEC) => {
            format!("{} has no first line such as #!/bin/sh", invocation.path.display())
        }
        _ => error.to_string(),
    }
}

/// Returns a command that runs `invocation` with the library for CPython, and with the malloc
/// library if `malloc` is true.
///
/// # Errors
///
/// Fails if a library is missing, or if its path cannot be listed in `LD_PRELOAD`.
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
    pass_on_ignored_sigpipe(&mut command);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_an_optional_unit() {
        for text in ["1000000", "512K", "64m", "2G"] {
            assert_eq!(size(text), Ok(text.to_owned()));
        }
        for text in ["", "0", "M", "64MB", "1.5G", "+1", "lots"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_place_for_statistics_is_a_path_or_a_switch() {
        for text in ["-", "1", "ON", "off", "./stats", "stats.json", "stats-%p"] {
            assert_eq!(place(text.into()), Ok(text.into()));
        }
        for text in ["", "plain", "json"] {
            assert!(place(text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_names_of_pymalloc_leave_room_for_the_heap() {
        for (name, expected) in [("malloc", true), ("mimalloc", true), ("pymalloc", false)] {
            assert_eq!(other_allocator(Some(name.into())).is_some(), expected, "{name}");
        }
        assert_eq!([None, Some("".into())].map(other_allocator), [None, None]);
    }
}
