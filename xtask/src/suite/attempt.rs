//! Runs one of CPython's test files once, in its own process and folder.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use obmalloc_cli::reports::{Report, Reports};
use testkit::pythons::{self, Python};

use super::{
    files::File,
    outcome::{self, Outcome, Outcomes},
};
use crate::process::kill_group;

/// The additional time in which CPython's test runner can print where the tests hung.
const GRACE: Duration = Duration::from_secs(30);

/// The end of the reason that a report gives if a test chose one of CPython's allocators.
pub(super) const REQUESTED: &str = " makes CPython use allocators of its own";

/// The end of the reason that a report gives if a test left a tracer or a hook on top of our heap.
const HOOKED: &str = "other functions were put over it";

#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) outcomes: Outcomes,
    pub(super) output: String,
    pub(super) processes: Processes,
}

/// The processes of a run that wrote a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Processes {
    /// True if the process that ran the tests was on our heap.
    itself: bool,
    pub(super) ours: usize,
    /// The number of other processes, by the reason that they reported.
    pub(super) others: BTreeMap<String, usize>,
}

impl Processes {
    fn of(reports: &BTreeMap<u32, Report>, pid: u32) -> Self {
        let itself = reports.get(&pid).is_some_and(|report| report.in_force);
        let mut processes = Self { itself, ..Self::default() };
        for report in reports.values() {
            if report.in_force {
                processes.ours += 1;
            } else {
                let reason = report.reason.as_deref().unwrap_or("no reason given");
                *processes.others.entry(reason.to_owned()).or_default() += 1;
            }
        }
        processes
    }

    /// Returns the reasons for not using our heap that a test cannot have caused.
    pub(super) fn unexplained(&self) -> impl Iterator<Item = &str> {
        let reasons = self.others.keys().map(String::as_str);
        reasons.filter(|reason| ![REQUESTED, HOOKED].iter().any(|end| reason.ends_with(end)))
    }
}

pub(super) fn run(python: &Python, file: File, library: Option<&Path>) -> Result<Attempt> {
    let folder = tempfile::tempdir()?;
    let (results, printed) = (folder.path().join("results.xml"), folder.path().join("output"));
    let reports = Reports::new()?;
    let mut command = pythons::clean_command(&python.executable);
    let limit = file.longest();
    command.args(["-m", "test", "-v", "--timeout", &limit.as_secs().to_string()]);
    command.arg("--junit-xml").arg(&results).arg(file.name);
    command.args(file.patterns().iter().flat_map(|pattern| ["-m", pattern]));
    command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(folder.path());
    if let Some(library) = library {
        // Some tests check the stderr of a Python with another allocator.
        command.env("LD_PRELOAD", library).env("OBMALLOC", "quiet");
        reports.ask(&mut command);
    }
    let output = fs::File::create(&printed)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let (pid, status) = finish(&mut command, limit + GRACE)?;
    let output = String::from_utf8_lossy(&fs::read(&printed)?).into_owned();
    let mut outcomes = outcomes(file, status, fs::read_to_string(&results).ok(), &output)?;
    let processes = Processes::of(&reports.read()?, pid);
    let is_unexplained = || !processes.itself || processes.unexplained().next().is_some();
    // An additional test checks that every process used our heap, unless a test prevented this.
    let failed = library.is_some() && is_unexplained();
    let outcome = if failed { Outcome::Failed } else { Outcome::Passed };
    outcome::add(&mut outcomes, &format!("{} on our heap", file.name), outcome);
    Ok(Attempt { outcomes, output, processes })
}

/// Runs `command` in its own process group for at most `limit`. Then kills all remaining processes
/// of the group.
fn finish(command: &mut Command, limit: Duration) -> Result<(u32, ExitStatus)> {
    let started = Instant::now();
    reset_signals(command.process_group(0));
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    loop {
        if let Some(status) = child.try_wait()? {
            kill_group(child.id());
            return Ok((child.id(), status));
        }
        if started.elapsed() > limit {
            kill_group(child.id());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Restores the default signal handlers, because a shell makes background programs ignore some
/// signals.
fn reset_signals(command: &mut Command) {
    let reset = || {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: `signal` takes two constants, and may be called between fork and exec.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: `reset` neither allocates nor takes locks, as required between fork and exec.
    unsafe { command.pre_exec(reset) };
}

/// Returns the outcome of each test, and of the file as a whole.
///
/// The file's own outcome covers doctests, crashes and skipped files.
fn outcomes(
    file: File,
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
    let is_shown = outcomes.values().any(|outcome| *outcome == Outcome::Failed);
    let whole = match (status.success(), has_results) {
        (true, true) => Outcome::Passed,
        (true, false) => Outcome::Skipped,
        (false, true) if status.code().is_some() && is_shown => Outcome::Passed,
        (false, true) if status.code().is_some() => Outcome::Failed,
        (false, _) => Outcome::Lost,
    };
    outcome::add(&mut outcomes, &format!("{} as a whole", file.name), whole);
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::suite::files::Part;

    const FILE: File = File { name: "test_x", part: Part::Everywhere };

    fn whole(raw_status: i32, results: Option<&str>, output: &str) -> Outcome {
        let status = ExitStatus::from_raw(raw_status);
        let outcomes = outcomes(FILE, status, results.map(str::to_owned), output).unwrap();
        outcomes["test_x as a whole"]
    }

    #[test]
    fn a_file_as_a_whole_shows_what_no_test_shows() {
        let passed = Some("<a><testcase name='x'/></a>");
        let failed = Some("<a><testcase name='x'><failure/></testcase></a>");
        let (exit_0, exit_2, killed) = (0, 2 << 8, libc::SIGSEGV);
        assert_eq!(whole(exit_0, passed, ""), Outcome::Passed);
        assert_eq!(whole(exit_0, None, ""), Outcome::Skipped);
        assert_eq!(whole(exit_2, failed, ""), Outcome::Passed, "the test shows it");
        assert_eq!(whole(exit_2, passed, ""), Outcome::Failed, "a doctest");
        assert_eq!(whole(exit_2, None, ""), Outcome::Lost);
        assert_eq!(whole(killed, passed, ""), Outcome::Lost);
    }

    #[test]
    fn a_run_receives_an_interrupt_that_we_ignore() {
        let mut command = Command::new("sh");
        command.args(["-c", "kill -INT $$"]);
        // SAFETY: ignoring a signal installs no handler, and a child that inherits this comes to no
        // harm.
        let before = unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
        let ended = finish(&mut command, Duration::from_secs(60));
        // SAFETY: `before` is the handler that `signal` returned.
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
        // `sleep` holds the pipe open, so reading ends only when `sleep` is killed.
        command.args(["-c", "sleep 1000 &"]).stdout(Stdio::piped());
        let mut child = command.process_group(0).spawn().unwrap();
        child.wait().unwrap();
        let started = Instant::now();
        kill_group(child.id());
        std::io::copy(&mut child.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
        assert!(started.elapsed() < Duration::from_secs(500));
    }

    fn report(reason: Option<&str>) -> Report {
        let reason = reason.map(str::to_owned);
        Report { in_force: reason.is_none(), reason, domains: BTreeMap::new(), served: None }
    }

    #[test]
    fn children_that_a_test_takes_off_our_heap_are_told_from_others() {
        let requested = "PYTHONMALLOC=debug makes CPython use allocators of its own";
        let reports = [report(None), report(Some(requested)), report(Some("?"))];
        let reports = (1..).zip(reports).collect();
        let processes = Processes::of(&reports, 1);
        assert!(processes.itself && processes.ours == 1);
        assert_eq!(processes.unexplained().collect::<Vec<_>>(), ["?"]);
        assert!(!Processes::of(&reports, 2).itself);
        assert!(!Processes::of(&reports, 9).itself, "it left no report");
    }
}
