//! The resident memory and the page faults of this process.

use std::{fs, mem::MaybeUninit};

/// Returns the bytes that the kernel reports under `name` in `/proc/self/status`, or 0.
///
/// The peak of `getrusage` would include the parent's memory at the fork.
pub(crate) fn resident(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kibibytes.unwrap_or(0_u64) * 1024
}

/// Returns the number of page faults of this process that needed no input or output.
pub(crate) fn faults() -> u64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is valid for writing an `rusage`.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    // SAFETY: an `rusage` consists of numbers, for which zero is valid.
    unsafe { usage.assume_init() }.ru_minflt.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn writing_to_new_memory_causes_page_faults() {
        let before = faults();
        black_box(vec![1_u8; 64 << 20]);
        assert!(faults() > before);
    }
}
