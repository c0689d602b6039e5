//! The resident memory of this process.

use std::fs;

/// Returns the bytes that the kernel reports under `name` in `/proc/self/status`, or 0.
///
/// The peak of `getrusage` would include the parent's memory at the fork.
pub(crate) fn resident(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kibibytes.unwrap_or(0_u64) * 1024
}
