//! When the process's heaps return free memory to the system on their own.

#![forbid(unsafe_code)]

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use obmalloc::PurgePolicy;
use raw_mem::coarse_now;

const NEVER: u64 = u64::MAX;

/// The decay time in milliseconds, or [`NEVER`].
static DECAY: AtomicU64 = AtomicU64::new(1000);

/// Sets the decay time of all heaps that are opened later. See `PerThread::set_decay`.
pub(super) fn set(decay: Option<Duration>) {
    let milliseconds = |decay: Duration| u64::try_from(decay.as_millis()).unwrap_or(NEVER);
    DECAY.store(decay.map_or(NEVER, milliseconds), Relaxed);
}

/// Returns the policy of a heap that is opened now.
pub(super) fn policy() -> PurgePolicy {
    match DECAY.load(Relaxed) {
        NEVER => PurgePolicy::NEVER,
        decay => PurgePolicy::after(Duration::from_millis(decay), coarse_now),
    }
}
