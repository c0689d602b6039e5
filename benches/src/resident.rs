//! Reads the resident memory of this process.

use std::fs;

/// Returns the number of bytes that the kernel reports for this process under `name`, or 0 if the
/// kernel reports no such value.
///
/// We do not use `getrusage`, because its peak includes the memory that was resident in the parent
/// process when it forked.
pub(crate) fn resident(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kibibytes.unwrap_or(0_u64) * 1024
}
