//! The warning on stderr about a soft limit.

#![forbid(unsafe_code)]

use std::{fmt::Write, process};

use crate::{Output, Usage, preserving_errno};

/// Writes one line to stderr, without allocating memory. `errno` is unchanged. If writing fails,
/// for example because stderr is closed, the error is ignored.
pub fn warn_of_soft_limit(usage: &Usage) {
    let (pid, used, limit) = (process::id(), usage.bytes(), usage.limits().soft);
    preserving_errno(|| {
        let _ = writeln!(
            Output::stderr(),
            "obmalloc: process {pid} uses {used} bytes, which exceeds the soft limit of {limit} bytes"
        );
    });
}
