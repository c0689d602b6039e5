//! Makes a process return memory to the system.

#![forbid(unsafe_code)]

use std::{
    thread,
    time::{Duration, Instant},
};

use super::page::{figures, page, size};
use crate::{
    failure::{Failure, NO, Result},
    output::print,
};

/// Makes a running process return unused memory of its heap to the system, and prints how much.
///
/// The process notices the request to trim only when it asks its allocator for a block of more than
/// 512 bytes. An idle process allocates no such block, so it returns no memory until it becomes
/// active again.
#[derive(Clone, Debug, clap::Args)]
pub struct TrimArgs {
    /// The process.
    pid: u32,
    /// The seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    wait: u16,
}

/// Asks the process for a trim, and prints the number of bytes that it returned.
///
/// # Errors
///
/// Fails with the code [`NO`] if the process has no page, has ended, or does not answer.
pub fn trim(args: &TrimArgs) -> Result<()> {
    let page = page(args.pid)?;
    let cannot = || Failure::new(format!("cannot trim process {}", args.pid)).code(NO);
    let report = figures(&page).unwrap_or_default();
    if page.is_live() && report["in_force"] == false {
        let reason = report["reason"].as_str().unwrap_or("no reason given");
        return Err(cannot().because(format!("it does not use our heap: {reason}")));
    }
    let command = page.ask();
    let deadline = Instant::now() + Duration::from_secs(args.wait.into());
    loop {
        if let Some(bytes) = page.answer(command) {
            return print(format!("{} returned\n", size(bytes)));
        }
        if !page.is_live() {
            return Err(cannot().because("it has ended"));
        }
        if Instant::now() >= deadline {
            return Err(cannot().because(format!(
                "it did not answer within {} seconds, so it is idle or its main thread waits; it \
                 trims when it works again",
                args.wait
            )));
        }
        thread::sleep(Duration::from_millis(5));
    }
}
