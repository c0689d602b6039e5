//! What one run of a program cost, by the system's own accounting of that child.

use std::{
    io::{Read, Seek},
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

/// What a run cost, and what it printed.
#[derive(Clone, Debug)]
pub(crate) struct Cost {
    /// Seconds from start to end.
    pub(crate) wall: f64,
    /// Seconds of processor time, in the program and in the system.
    pub(crate) cpu: f64,
    /// Peak resident size in KiB.
    pub(crate) peak: f64,
    /// What it printed to stdout.
    pub(crate) output: Vec<u8>,
}

/// Runs `command` to its end.
pub(crate) fn run(command: &mut Command) -> Result<Cost> {
    let mut printed = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(printed.try_clone()?);
    let started = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let (status, usage) = wait(child.id())?;
    let wall = started.elapsed().as_secs_f64();
    ensure!(status.success(), "{command:?} ended with {status}");
    let mut output = Vec::new();
    printed.rewind()?;
    printed.read_to_end(&mut output)?;
    let cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    Ok(Cost { wall, cpu, peak: usage.ru_maxrss as f64, output })
}

/// Waits for a child of ours and returns what it alone has used.
fn wait(child: u32) -> Result<(ExitStatus, libc::rusage)> {
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::uninit());
    // SAFETY: both places are valid for the call to write to.
    let waited = unsafe { libc::wait4(child.cast_signed(), &mut status, 0, usage.as_mut_ptr()) };
    ensure!(waited > 0, "cannot wait: {}", std::io::Error::last_os_error());
    // SAFETY: the call succeeded, so it has written the usage.
    Ok((ExitStatus::from_raw(status), unsafe { usage.assume_init() }))
}

fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_measured_and_its_output_kept() {
        let cost = run(Command::new("sh").args(["-c", "echo here"])).unwrap();
        assert_eq!(cost.output, b"here\n");
        assert!(cost.peak > 0.0 && cost.wall > 0.0 && cost.cpu >= 0.0);
    }

    #[test]
    fn a_run_that_fails_is_an_error() {
        assert!(run(Command::new("sh").args(["-c", "exit 3"])).is_err());
    }
}
