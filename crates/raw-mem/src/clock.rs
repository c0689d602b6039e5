//! The clock that measures the decay time.

use core::time::Duration;

/// The fastest clock of the system. It advances every few milliseconds.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android")), not(miri)))]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Returns the time since an arbitrary start. The result is accurate to a few milliseconds. The
/// function takes no lock.
#[cfg(all(unix, not(miri)))]
pub fn coarse_now() -> Duration {
    let mut time = core::mem::MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the pointer is valid for writes of a `timespec`.
    if unsafe { libc::clock_gettime(CLOCK, time.as_mut_ptr()) } != 0 {
        return Duration::ZERO;
    }
    // SAFETY: the call succeeded, so it has written the time.
    let time = unsafe { time.assume_init() };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Returns the time since the first call.
#[cfg(not(all(unix, not(miri))))]
pub fn coarse_now() -> Duration {
    use std::{sync::OnceLock, time::Instant};

    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_clock_advances() {
        let before = coarse_now();
        thread::sleep(Duration::from_millis(50));
        let passed = coarse_now() - before;
        assert!((20..10_000).contains(&passed.as_millis()), "{passed:?}");
    }
}
