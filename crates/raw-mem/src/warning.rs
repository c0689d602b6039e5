//! The warning on stderr about a soft limit.

#![forbid(unsafe_code)]

use std::{fmt::Write, process};

use crate::{Output, Usage, preserving_errno};

/// Writes a warning of one line to stderr, without allocating memory. Leaves `errno` unchanged.
///
/// Ignores errors, which occur for example if stderr is closed.
pub fn warn_of_soft_limit(usage: &Usage) {
    let (pid, used, limit) = (process::id(), usage.bytes(), usage.limits().soft);
    preserving_errno(|| {
        let _ = writeln!(
            Output::stderr(),
            "obmalloc: process {pid} uses {used} bytes, which exceeds the soft limit of {limit} bytes"
        );
    });
}
