//! The rules for when the process's heaps return free memory to the system automatically.

#![forbid(unsafe_code)]

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use obmalloc::PurgePolicy;
use raw_mem::{HugePages, MemoryPressure, coarse_now};

use super::{fork, heaps::HEAPS};

const NEVER: u64 = u64::MAX;

/// The decay time in milliseconds, or [`NEVER`].
static DECAY: AtomicU64 = AtomicU64::new(1000);

/// Sets the decay time of all heaps that are opened later. See `PerThread::set_decay`.
pub(super) fn set(decay: Option<Duration>) {
    let milliseconds = |decay: Duration| u64::try_from(decay.as_millis()).unwrap_or(NEVER);
    DECAY.store(decay.map_or(NEVER, milliseconds), Relaxed);
}

/// True if we purge only whole arenas, because parts of an arena may be parts of huge pages.
static WHOLE_ARENAS: AtomicBool = AtomicBool::new(false);

/// The source of memory pressure readings, if the heaps should be trimmed while memory is short.
static PRESSURE: OnceLock<MemoryPressure> = OnceLock::new();

/// Sets whether the heaps use huge pages. See `PerThread::use_huge_pages`.
pub(super) fn use_huge_pages(huge: HugePages) {
    WHOLE_ARENAS.store(huge.is_on(), Relaxed);
    fork::lock_source().use_huge_pages(huge);
}

/// Makes heaps that are opened later return unused memory while memory is short.
pub(super) fn trim_when_short(pressure: MemoryPressure) {
    PRESSURE.get_or_init(|| pressure);
}

/// Returns true if memory is short.
///
/// If this call reads the pressure and finds that memory is short, it also purges abandoned heaps
/// and inboxes.
fn is_short(now: Duration) -> bool {
    let Some(pressure) = PRESSURE.get() else { return false };
    // The heap that calls this function has an owner, so the flush does not use it.
    if pressure.read_if_due(now) == Some(true) {
        HEAPS.flush_others();
    }
    pressure.is_short()
}

/// Returns the policy of a heap that is opened now.
pub(super) fn policy() -> PurgePolicy {
    let mut policy = match DECAY.load(Relaxed) {
        NEVER => PurgePolicy::NEVER,
        decay => PurgePolicy::after(Duration::from_millis(decay), coarse_now),
    };
    if WHOLE_ARENAS.load(Relaxed) {
        policy = policy.of_whole_arenas();
    }
    if PRESSURE.get().is_some() {
        policy = policy.when_short(coarse_now, is_short);
    }
    policy
}
