//! Runs a program once, and measures its time and memory.
//!
//! The program runs in a child process, and the kernel reports the peak of memory of this process.
//! Before the child process starts the program, it uses the memory of `obmalloc`, which the kernel
//! counts too. The measured peak is therefore never below the memory of `obmalloc`. The results for
//! Python programs are correct, because a Python process always uses more memory than `obmalloc`.

#![forbid(unsafe_code)]

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::{
    failure::{Attempt, FAILED, Failure, Result},
    system::wait,
};

/// The size in bytes of the unit in which the kernel reports the peak of memory.
const UNIT_OF_PEAK: f64 = if cfg!(target_os = "macos") { 1.0 } else { 1024.0 };

/// The cost of one run of a program.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// The wall time in seconds.
    pub wall: f64,
    /// The processor time in seconds, including the kernel's work.
    pub cpu: f64,
    /// The peak of resident memory, in bytes.
    pub peak: f64,
}

/// A successful run of a program.
#[derive(Debug)]
pub struct Run {
    /// The process id of the program.
    pub pid: u32,
    /// The time and memory that the program needed.
    pub cost: Cost,
    /// The output of the program to stdout.
    pub stdout: Vec<u8>,
}

/// Runs `command` until it ends.
///
/// # Errors
///
/// Fails if `command` cannot be started or does not succeed. The error contains the output of the
/// command.
pub fn run(command: &mut Command) -> Result<Run> {
    let file = || tempfile::tempfile().attempt(|| "cannot create a file for the output");
    let (mut stdout, mut stderr) = (file()?, file()?);
    let copy = |file: &File| file.try_clone().attempt(|| "cannot share the file for the output");
    command.stdin(Stdio::null()).stdout(copy(&stdout)?).stderr(copy(&stderr)?);
    let start = Instant::now();
    let name = Path::new(command.get_program()).display().to_string();
    let child = command.spawn().attempt(|| format!("cannot start {name}"))?;
    let pid = child.id();
    let (status, usage) = wait(child).attempt(|| format!("cannot wait for {name}"))?;
    let wall = start.elapsed().as_secs_f64();
    let cannot_read = || format!("cannot read the output of {name}");
    let stdout = contents(&mut stdout).attempt(cannot_read)?;
    if !status.success() {
        let printed = [stdout, contents(&mut stderr).attempt(cannot_read)?].concat();
        let printed = String::from_utf8_lossy(&printed);
        let because = match printed.trim_end() {
            "" => format!("{status}, and it printed nothing"),
            printed => format!("{status}, and it printed:\n{printed}"),
        };
        return Err(Failure::new(format!("{name} failed")).because(because).code(code(status)));
    }
    let cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    let peak = usage.ru_maxrss as f64 * UNIT_OF_PEAK;
    Ok(Run { pid, cost: Cost { wall, cpu, peak }, stdout })
}

/// Returns the exit code that a shell would report.
fn code(status: ExitStatus) -> u8 {
    let killed = || 128 + status.signal().unwrap_or_default();
    u8::try_from(status.code().unwrap_or_else(killed)).unwrap_or(FAILED)
}

fn seconds(time: libc::timeval) -> f64 {
    let part = Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0));
    time.tv_sec as f64 + part.as_secs_f64()
}

fn contents(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_child_is_measured_by_itself() {
        let mut hungry = Command::new("sh");
        let big =
            run(hungry.args(["-c", "head -c 60000000 /dev/zero | tail -n 1 | wc -c"])).unwrap();
        let small = run(Command::new("sleep").arg("0.05")).unwrap();
        assert_eq!(big.stdout, b"60000000\n");
        assert!(big.cost.peak > 6e7 && small.cost.peak < 4e7, "{big:?} {small:?}");
        assert!(small.cost.wall >= 0.05 && small.cost.cpu < 0.05, "{small:?}");
    }

    #[test]
    fn the_error_of_a_failed_program_has_what_it_printed() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        let error = error.unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        assert!(text.contains("out\nerr") && text.contains("exit status: 3"), "{text}");
    }
}
