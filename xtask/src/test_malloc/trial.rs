//! Runs one program without and with the library.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use testkit::pythons::clean_command;

use super::{fetched, programs::Program};
use crate::{
    process::{self, Captured},
    tally::Tally,
    workspace,
};

/// The time after which a program counts as hanging.
const LIMIT: Duration = Duration::from_secs(20 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Quick,
    Full,
}

impl Size {
    fn word(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
        }
    }
}

#[derive(Debug)]
pub(super) struct Libraries {
    pub(super) malloc: PathBuf,
    pub(super) cpython: PathBuf,
}

/// Runs `program` both ways, and prints one line about it.
pub(super) fn run(program: &Program, libraries: &Libraries, size: Size) -> Tally {
    let name = program.name;
    let missing = || program.needs.iter().find(|needed| !fetched::has(needed));
    if missing().is_some()
        && let Err(error) = fetched::bring()
    {
        return Tally::skipped(format_args!("{name} is NOT TESTED: {error:#}"));
    }
    if let Some(missing) = missing() {
        return Tally::skipped(format_args!("{name} is NOT TESTED: there is no {missing}"));
    }
    match compare(program, libraries, size) {
        Ok(Pair { alone, with, processes }) => {
            println!(
                "      ok: {name:8} {:6.1} s without, {:6.1} s with the library, {processes} \
                 processes",
                alone.as_secs_f64(),
                with.as_secs_f64()
            );
            Tally::one(true)
        }
        Err(error) => {
            println!("      FAILED: {name}: {error:#}");
            Tally::one(false)
        }
    }
}

struct Pair {
    alone: Duration,
    with: Duration,
    /// How many processes wrote statistics, so the library was in use.
    processes: usize,
}

fn compare(program: &Program, libraries: &Libraries, size: Size) -> Result<Pair> {
    let statistics = workspace::target_dir().join("test-malloc/statistics");
    empty(&statistics)?;
    let (without, alone) = attempt(program, size, |_| ())?;
    ensure!(
        without.code == Some(0),
        "it fails even without the library: {}",
        last_lines(&without.stderr)
    );
    let (with_library, with) = attempt(program, size, |command| {
        let mut preload = OsString::from(&libraries.malloc);
        if program.with_cpython {
            preload.push(" ");
            preload.push(&libraries.cpython);
        }
        command.env("LD_PRELOAD", preload);
        command.env("OBMALLOC_MALLOC_STATS", statistics.join("%p.json"));
    })?;
    if let Some(line) = with_library.stderr.lines().find(|line| is_complaint(line)) {
        bail!("it prints: {line}");
    }
    ensure!(
        with_library.code == without.code,
        "it ends with {:?}: {}",
        with_library.code,
        last_lines(&with_library.stderr)
    );
    for (captured, end) in [(&without, "without.txt"), (&with_library, "with.txt")] {
        let file = workspace::target_dir().join("test-malloc").join(program.name);
        fs::write(file.with_extension(end), &captured.stdout)?;
    }
    if let Some(difference) = difference(&without.stdout, &with_library.stdout) {
        bail!("it prints something else with the library: {difference}");
    }
    let processes = fs::read_dir(&statistics)?.count();
    ensure!(processes > 0, "the library was in no process");
    Ok(Pair { alone, with, processes })
}

fn attempt(
    program: &Program,
    size: Size,
    prepare: impl FnOnce(&mut Command),
) -> Result<(Captured, Duration)> {
    // Both attempts have the same path, because compilers write it into their products.
    let folder = workspace::target_dir().join("test-malloc").join(program.name);
    empty(&folder)?;
    let script = folder.with_extension("sh");
    fs::write(&script, program.script)?;
    let mut command = clean_command("bash");
    command.arg(script.canonicalize()?).arg(size.word()).current_dir(&folder);
    command.env("LC_ALL", "C").env("PROJECT", workspace::root().canonicalize()?);
    command.env("REAL_HOME", env::var_os("HOME").unwrap_or_default());
    command.env("HOME", folder.canonicalize()?);
    fetched::use_in(&mut command, program.needs);
    prepare(&mut command);
    let spinner = ProgressBar::new_spinner().with_message(program.name);
    spinner.enable_steady_tick(Duration::from_millis(200));
    let started = Instant::now();
    let captured = process::capture(command, LIMIT);
    spinner.finish_and_clear();
    Ok((captured?, started.elapsed()))
}

fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// Returns true if the loader or our library complains.
fn is_complaint(line: &str) -> bool {
    line.starts_with("obmalloc: ") || line.starts_with("ERROR: ld.so")
}

fn last_lines(text: &str) -> String {
    const LAST: usize = 5;
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST)..].join("; ")
}

fn difference(one: &str, other: &str) -> Option<String> {
    if one == other {
        return None;
    }
    let (mut ones, mut others) = (one.lines(), other.lines());
    let mut number = 0;
    loop {
        number += 1;
        match (ones.next(), others.next()) {
            (None, None) => return Some("the ends of lines differ".to_owned()),
            (one, other) if one == other => {}
            (one, other) => {
                let [one, other] = [one, other].map(|line| line.unwrap_or("nothing"));
                return Some(format!("line {number} is {other:?} instead of {one:?}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_its_first_line() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(difference("a\nb\n", "a\nc\n").unwrap(), "line 2 is \"c\" instead of \"b\"");
        assert_eq!(difference("a\n", "").unwrap(), "line 1 is \"nothing\" instead of \"a\"");
        assert_eq!(difference("a\n", "a").unwrap(), "the ends of lines differ");
    }

    #[test]
    fn only_lines_of_the_loader_and_the_library_are_complaints() {
        assert!(is_complaint("obmalloc: cannot free the memory at 0x1"));
        assert!(is_complaint("ERROR: ld.so: object 'x' cannot be preloaded"));
        assert!(!is_complaint("error: obmalloc: "));
    }
}
