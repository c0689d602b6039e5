//! A child process whose every line is kept, and seen as it comes.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    sync::mpsc::{Sender, channel},
    thread,
};

use anyhow::{Context, Result};

/// How a child ended.
pub(crate) struct Finished {
    /// It exited with 0.
    pub(crate) success: bool,
    /// All it printed to stdout and stderr, in the order it came.
    pub(crate) output: String,
}

/// Runs `command` to its end, calling `see` with each line that it prints.
pub(crate) fn run(mut command: Command, mut see: impl FnMut(&str)) -> Result<Finished> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let (sender, lines) = channel();
    let readers = [
        child.stdout.take().map(|pipe| read(pipe, sender.clone())),
        child.stderr.take().map(|pipe| read(pipe, sender)),
    ];
    let mut output = String::new();
    for line in lines {
        see(&line);
        output.push_str(&line);
        output.push('\n');
    }
    for reader in readers.into_iter().flatten() {
        let _ = reader.join();
    }
    Ok(Finished { success: child.wait()?.success(), output })
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
