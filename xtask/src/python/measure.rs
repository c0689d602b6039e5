//! One run of a program: what it cost, and what it printed.
//!
//! The kernel counts for each child by itself: processor time of all its threads and of the
//! children it waited for, and the most memory that was resident at once. A child begins with the
//! resident memory of the process that forks it, which here is some megabytes; every Python needs
//! more.

use std::{
    fs::File,
    io::{self, Read, Seek},
    mem::MaybeUninit,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// What a run cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Seconds from its start to its end.
    pub(super) wall: f64,
    /// Seconds of processor time, in the program and in the kernel for it.
    pub(super) cpu: f64,
    /// Bytes that were resident when most were.
    pub(super) peak: f64,
}

/// A run that ended well.
#[derive(Debug)]
pub(super) struct Run {
    /// The process it was.
    pub(super) pid: u32,
    pub(super) cost: Cost,
    /// What it printed.
    pub(super) stdout: Vec<u8>,
}

/// Runs `command` to its end.
///
/// Fails when it cannot be started or ends badly, with what it printed.
pub(super) fn run(command: &mut Command) -> Result<Run> {
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let start = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let pid = child.id();
    let (status, usage) = wait(child)?;
    let wall = start.elapsed().as_secs_f64();
    let stdout = contents(&mut stdout)?;
    if !status.success() {
        let printed = [stdout, contents(&mut stderr)?].concat();
        bail!("{command:?}: {status}\n{}", String::from_utf8_lossy(&printed));
    }
    let cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    Ok(Run { pid, cost: Cost { wall, cpu, peak: bytes(usage.ru_maxrss) }, stdout })
}

/// Waits for `child`, and asks what it used.
fn wait(child: Child) -> io::Result<(ExitStatus, libc::rusage)> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: the child is ours and nobody has waited for it; both places can be written.
        let pid =
            unsafe { libc::wait4(child.id().cast_signed(), &mut status, 0, usage.as_mut_ptr()) };
        if pid >= 0 {
            // SAFETY: numbers, which were zero before the kernel filled them in.
            return Ok((ExitStatus::from_raw(status), unsafe { usage.assume_init() }));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn seconds(time: libc::timeval) -> f64 {
    let part = Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0));
    time.tv_sec as f64 + part.as_secs_f64()
}

/// The kernel's unit of memory: a byte on macOS, 1,024 bytes elsewhere.
fn bytes(resident: libc::c_long) -> f64 {
    resident as f64 * if cfg!(target_os = "macos") { 1.0 } else { 1024.0 }
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
    fn a_program_that_fails_is_told_with_what_it_printed() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("out\nerr\n") && text.contains("exit status: 3"), "{text}");
    }
}
