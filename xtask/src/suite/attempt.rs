//! One run of a test file, in a process and a folder of its own.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use testkit::pythons::{self, Python};

use super::{
    children::Processes,
    files::File,
    outcome::{self, Outcome, Outcomes},
};
use crate::{process::kill_group, python::report::Reports};

/// What CPython's runner gets on top of its timeout to say where it hung, and to give up.
const GRACE: Duration = Duration::from_secs(30);

/// What a run left.
#[derive(Debug)]
pub(super) struct Attempt {
    /// Of each test, and of the file as a whole.
    pub(super) outcomes: Outcomes,
    /// All it printed.
    pub(super) output: String,
    /// With the library: the processes that it was in.
    pub(super) processes: Processes,
}

/// Runs `file` on `python`, with `library` if there is one.
pub(super) fn run(python: &Python, file: &File, library: Option<&Path>) -> Result<Attempt> {
    let folder = tempfile::tempdir()?;
    let (results, printed) = (folder.path().join("results.xml"), folder.path().join("output"));
    let reports = Reports::new()?;
    let mut command = pythons::clean_command(&python.executable);
    let patience = file.part.patience();
    command.args(["-m", "test", "-v", "--timeout", &patience.as_secs().to_string()]);
    command.arg("--junit-xml").arg(&results).arg(file.name);
    command.args(file.matching.iter().flat_map(|pattern| ["-m", pattern]));
    command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(folder.path());
    if let Some(library) = library {
        // Some tests start a Python with another allocator and read its stderr.
        command.env("LD_PRELOAD", library).env("OBMALLOC", "quiet");
        reports.ask(&mut command);
    }
    let output = fs::File::create(&printed)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let (pid, status) = finish(&mut command, patience + GRACE)?;
    let output = String::from_utf8_lossy(&fs::read(&printed)?).into_owned();
    let mut outcomes = outcomes(file, status, fs::read_to_string(&results).ok(), &output)?;
    let processes = Processes::of(&reports.read()?, pid);
    add_heap(&mut outcomes, file, library.map(|_| &processes));
    Ok(Attempt { outcomes, output, processes })
}

/// Starts `command` in a process group of its own and waits for it, but no longer than `patience`.
/// What it leaves behind in the group is killed.
fn finish(command: &mut Command, patience: Duration) -> Result<(u32, ExitStatus)> {
    let started = Instant::now();
    hear_signals(command.process_group(0));
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    loop {
        if let Some(status) = child.try_wait()? {
            kill_group(child.id());
            return Ok((child.id(), status));
        }
        if started.elapsed() > patience {
            kill_group(child.id());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Has `command` start with the signals of a terminal as they are by default. A shell ignores some
/// of them for what it runs in the background, and a Python that ignores SIGINT is none that
/// CPython's tests of it are for: test_threading then waits forever.
fn hear_signals(command: &mut Command) {
    let reset = || {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: it takes two constants, and may be called between fork and exec.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: `reset` neither allocates nor locks.
    unsafe { command.pre_exec(reset) };
}

/// The outcome of each test, and of the file as a whole, which tells what no test tells: doctests,
/// a crash, a file that is skipped.
fn outcomes(
    file: &File,
    status: ExitStatus,
    results: Option<String>,
    output: &str,
) -> Result<Outcomes> {
    let has_results = results.is_some();
    let mut outcomes = match results {
        Some(results) => outcome::of_junit(&results)?,
        None => Outcomes::new(),
    };
    for (test, _) in outcome::failures(output) {
        outcome::add(&mut outcomes, &test, Outcome::Failed);
    }
    let is_told = outcomes.values().any(|outcome| *outcome == Outcome::Failed);
    let whole = match (status.success(), has_results) {
        (true, true) => Outcome::Passed,
        (true, false) => Outcome::Skipped,
        (false, true) if status.code().is_some() && is_told => Outcome::Passed,
        (false, true) if status.code().is_some() => Outcome::Failed,
        (false, _) => Outcome::Lost,
    };
    outcome::add(&mut outcomes, &format!("{} as a whole", file.name), whole);
    Ok(outcomes)
}

/// Adds that the file and its children were on our heap, as a test that passes without the library.
fn add_heap(outcomes: &mut Outcomes, file: &File, processes: Option<&Processes>) {
    let holds = processes
        .is_none_or(|processes| processes.itself && processes.unexplained().next().is_none());
    let outcome = if holds { Outcome::Passed } else { Outcome::Failed };
    outcome::add(outcomes, &format!("{} on our heap", file.name), outcome);
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const FILE: &File = &super::super::files::ALL[0];

    fn whole(raw_status: i32, results: Option<&str>, output: &str) -> Outcome {
        let status = ExitStatus::from_raw(raw_status);
        let outcomes = outcomes(FILE, status, results.map(str::to_owned), output).unwrap();
        outcomes[&format!("{} as a whole", FILE.name)]
    }

    #[test]
    fn a_file_as_a_whole_tells_what_no_test_tells() {
        let passed = Some("<a><testcase name='x'/></a>");
        let failed = Some("<a><testcase name='x'><failure/></testcase></a>");
        let (exit_0, exit_2, killed) = (0, 2 << 8, libc::SIGSEGV);
        assert_eq!(whole(exit_0, passed, ""), Outcome::Passed);
        assert_eq!(whole(exit_0, None, ""), Outcome::Skipped);
        assert_eq!(whole(exit_2, failed, ""), Outcome::Passed, "the test tells");
        assert_eq!(whole(exit_2, passed, ""), Outcome::Failed, "a doctest");
        assert_eq!(whole(exit_2, None, ""), Outcome::Lost);
        assert_eq!(whole(killed, passed, ""), Outcome::Lost);
    }

    #[test]
    fn a_run_hears_an_interrupt_that_we_ignore() {
        let mut command = Command::new("sh");
        command.args(["-c", "kill -INT $$"]);
        // SAFETY: no handler is set; what is started meanwhile may ignore it as well.
        let before = unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
        let ended = finish(&mut command, Duration::from_secs(60));
        // SAFETY: `before` is what it was.
        unsafe { libc::signal(libc::SIGINT, before) };
        assert_eq!(ended.unwrap().1.signal(), Some(libc::SIGINT));
    }

    #[test]
    fn a_run_that_hangs_is_killed() {
        let mut command = Command::new("sleep");
        let (_, status) = finish(command.arg("1000"), Duration::from_millis(20)).unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn what_a_run_leaves_behind_is_killed() {
        let mut command = Command::new("sh");
        // The sleeper has the pipe, so there is no end to read before it dies.
        command.args(["-c", "sleep 1000 &"]).stdout(Stdio::piped());
        let mut child = command.process_group(0).spawn().unwrap();
        child.wait().unwrap();
        let started = Instant::now();
        kill_group(child.id());
        std::io::copy(&mut child.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
        assert!(started.elapsed() < Duration::from_secs(500));
    }
}
