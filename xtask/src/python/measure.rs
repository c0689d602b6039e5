//! Runs a program once, and measures its time and memory.
//!
//! The peak of memory includes that of this process at the fork, which is less than any Python
//! needs.

use std::{
    fs::File,
    io::{self, Read, Seek},
    mem::MaybeUninit,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// The wall time in seconds.
    pub(super) wall: f64,
    /// The processor time in seconds, including the kernel's work.
    pub(super) cpu: f64,
    /// The peak of resident memory, in bytes.
    pub(super) peak: f64,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) pid: u32,
    pub(super) cost: Cost,
    pub(super) stdout: Vec<u8>,
}

/// Runs `command` to its end.
///
/// # Errors
///
/// Fails if `command` cannot be started or fails. The error contains its output.
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
    // The kernel reports the peak in KiB, except on macOS.
    let unit = if cfg!(target_os = "macos") { 1.0 } else { 1024.0 };
    Ok(Run { pid, cost: Cost { wall, cpu, peak: usage.ru_maxrss as f64 * unit }, stdout })
}

/// Waits for `child` to end, and returns its status and the resources that it used.
fn wait(child: Child) -> io::Result<(ExitStatus, libc::rusage)> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: nobody has waited for `child` yet, so its id is valid. Both pointers are valid
        // for writes.
        let pid =
            unsafe { libc::wait4(child.id().cast_signed(), &mut status, 0, usage.as_mut_ptr()) };
        if pid >= 0 {
            // SAFETY: zero is a valid value for every number of a `rusage`.
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
        let text = error.unwrap_err().to_string();
        assert!(text.contains("out\nerr\n") && text.contains("exit status: 3"), "{text}");
    }
}
