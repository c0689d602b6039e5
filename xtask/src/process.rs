//! Runs child processes and passes on their output line by line.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{self, Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

/// The time without output after which a child counts as hanging.
const MOST_SILENCE: Duration = Duration::from_secs(10 * 60);

/// The ids of the running children, each of which leads a process group.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Makes Ctrl+C end this program and its children.
///
/// The terminal sends the signal only to this program, because each child has its own process
/// group.
pub(crate) fn kill_children_when_interrupted() -> Result<()> {
    ctrlc::set_handler(|| {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.iter().copied().for_each(kill_group);
        process::exit(130);
    })
    .context("cannot handle interrupts")
}

pub(crate) struct Finished {
    pub(crate) success: bool,
    pub(crate) output: String,
}

/// Runs `command`, and calls `see` with each line that it prints. Kills the command and its
/// children if it hangs.
pub(crate) fn run(command: Command, see: impl FnMut(&str)) -> Result<Finished> {
    run_within(command, MOST_SILENCE, see)
}

/// Runs `command` like [`run`], with another limit on the time without output.
pub(crate) fn run_within(
    mut command: Command,
    most_silence: Duration,
    mut see: impl FnMut(&str),
) -> Result<Finished> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = start(&mut command)?;
    let (sender, lines) = channel();
    let readers = [
        child.stdout.take().map(|pipe| read(pipe, sender.clone())),
        child.stderr.take().map(|pipe| read(pipe, sender)),
    ];
    let mut output = String::new();
    let mut add = |line: &str| {
        see(line);
        output.push_str(line);
        output.push('\n');
    };
    loop {
        match lines.recv_timeout(most_silence) {
            Ok(line) => add(&line),
            Err(RecvTimeoutError::Timeout) => {
                add(&format!("killed because it printed nothing for {most_silence:?}"));
                kill_group(child.id());
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    for reader in readers.into_iter().flatten() {
        let _ = reader.join();
    }
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.retain(|leader| *leader != child.id());
    Ok(Finished { success: child.wait()?.success(), output })
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Captured {
    /// The exit code, or `None` if a signal ended the command.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `command` to its end, and kills it and its children after `limit`.
pub(crate) fn capture(mut command: Command, limit: Duration) -> Result<Captured> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = start(&mut command)?;
    let leader = child.id();
    let (stop, stopped) = channel::<()>();
    let watchdog = thread::spawn(move || {
        if stopped.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            kill_group(leader);
        }
    });
    let errors = child.stderr.take().map(|pipe| thread::spawn(move || text_of(pipe)));
    let stdout = child.stdout.take().map(text_of).unwrap_or_default();
    let stderr = errors.and_then(|reader| reader.join().ok()).unwrap_or_default();
    drop(stop);
    let _ = watchdog.join();
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.retain(|running| *running != leader);
    Ok(Captured { code: child.wait()?.code(), stdout, stderr })
}

fn text_of(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs `command`, and returns what it printed to stdout.
///
/// # Errors
///
/// Fails if `command` cannot be started or fails. The error contains its stderr.
pub(crate) fn stdout_of(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} does not print text"))
}

fn start(command: &mut Command) -> Result<Child> {
    // The interrupt handler takes the same lock, so it finds every child that was started.
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    running.push(child.id());
    Ok(child)
}

pub(crate) fn kill_group(leader: u32) {
    // SAFETY: `kill` takes two numbers and accesses no memory.
    unsafe { libc::kill(-leader.cast_signed(), libc::SIGKILL) };
}

fn read(pipe: impl Read + Send + 'static, lines: Sender<String>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            let text = String::from_utf8_lossy(&line);
            if lines.send(text.trim_end_matches('\n').to_owned()).is_err() {
                break;
            }
            line.clear();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdout_stderr_and_the_exit_code_are_captured_apart() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 7"]);
        let captured = capture(command, Duration::from_secs(60)).unwrap();
        assert_eq!((&*captured.stdout, &*captured.stderr), ("out\n", "err\n"));
        assert_eq!(captured.code, Some(7));
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & sleep 1000"]);
        assert_eq!(capture(command, Duration::from_millis(100)).unwrap().code, None);
    }

    #[test]
    fn a_child_that_hangs_is_killed_with_what_it_started() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo begun; sleep 1000 & sleep 1000"]);
        let finished = run_within(command, Duration::from_secs(1), |_| ()).unwrap();
        assert!(!finished.success);
        assert_eq!(finished.output, "begun\nkilled because it printed nothing for 1s\n");
    }
}
