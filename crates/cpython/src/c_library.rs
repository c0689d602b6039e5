//! Returns free memory of the C library to the system.
//!
//! The C library's `malloc` serves most requests above 512 bytes. After CPython frees a block, the
//! C library usually retains the block's memory. The function `malloc_trim` returns the retained
//! memory to the system.
//!
//! A trim costs time in two ways. First, `malloc_trim` visits all free memory of the C library.
//! Second, each returned page causes a page fault when the program uses the page again. Three rules
//! limit both costs:
//!
//! - We divide time into intervals, and call an interval *calm* if the amount of memory in use
//!   changes little during it. We trim only after two calm intervals, because the program is then
//!   unlikely to need the returned pages soon.
//! - We trim only if memory in use has changed by at least [`WORTHWHILE`] bytes since the last
//!   trim.
//! - All automatic trims together take at most the fraction 1/[`PART_OF_TIME`] of the running time,
//!   which is less than one percent.
//!
//! We decide once per interval whether to trim the C library. An interval lasts two fifths of the
//! *decay time*, which is how long our own heap retains free memory before it returns the memory to
//! the system. Two intervals are thus a little shorter than the decay time. If the user sets the
//! decay time to zero, free memory should return to the system as soon as possible, so we then trim
//! without waiting for calm intervals.

use std::{
    ffi::{c_int, c_void},
    mem,
    ptr::{self, NonNull},
    sync::atomic::{AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use raw_mem::{coarse_now, preserving_errno};

use crate::loader;

/// The number of calls between two checks of the clock.
const CALLS: u32 = 64;

/// Trims take at most one part in `PART_OF_TIME` of the running time.
const PART_OF_TIME: u32 = 128;

/// An interval is calm if the amount of memory in use changes by at most this many bytes per
/// microsecond.
///
/// If a program uses returned memory again at this rate, the page faults take less than a hundredth
/// of its time.
const CALM: u64 = 16;

/// A request for at least this many bytes always counts as a change of the memory in use.
///
/// Smaller blocks count as a change only if their number changes.
const LARGE: usize = 64 << 10;

/// The number of calm intervals before a trim.
const CALM_INTERVALS: usize = 2;

static TRIMMER: Trimmer = Trimmer::new();

/// The C library's function `malloc_trim`.
///
/// # Invariant
///
/// Null, or the address of that function.
static MALLOC_TRIM: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Looks for `malloc_trim`, and sets the time after which free memory is returned. If `decay` is
/// `None`, only [`trim`] returns it.
///
/// Must be called before CPython is initialised, because the search for `malloc_trim` may wait for
/// a lock of the dynamic loader. The thread that holds this lock may be waiting for the GIL. If the
/// calling thread held the GIL, neither thread could continue.
pub(crate) fn start(decay: Option<Duration>) {
    // SAFETY: a data pointer fits every symbol, and this one is only stored.
    let found: Option<*mut c_void> = unsafe { loader::symbol(libc::RTLD_DEFAULT, c"malloc_trim") };
    match found {
        Some(function) => {
            // INVARIANT: this is the address of `malloc_trim`.
            MALLOC_TRIM.store(function, Relaxed);
            TRIMMER.set_decay(decay);
        }
        None => loader::clear_error(),
    }
}

/// Records a block of `size` bytes that the C library has allocated. Trims the C library if a trim
/// is due.
///
/// The caller must not be inside the C library's allocator.
#[inline]
pub(crate) fn note_new(block: Option<NonNull<u8>>, size: usize) {
    if block.is_some() {
        TRIMMER.note_live(1);
        note_resize(size);
    }
}

/// Notes that a block was resized to `size` bytes, and trims the C library if a trim is due.
///
/// The caller must not be inside the C library's allocator.
#[inline]
pub(crate) fn note_resize(size: usize) {
    TRIMMER.note_request(size);
    trim_if_due();
}

/// Notes that a block was freed, and trims the C library if a trim is due.
///
/// The caller must not be inside the C library's allocator.
#[inline]
pub(crate) fn note_free() {
    TRIMMER.note_live(-1);
    trim_if_due();
}

#[inline]
fn trim_if_due() {
    if TRIMMER.is_due(coarse_now) {
        trim();
    }
}

/// Makes the C library return free memory to the system, if it has `malloc_trim`. Preserves
/// `errno`.
#[cold]
pub(crate) fn trim() {
    let function = MALLOC_TRIM.load(Relaxed);
    if function.is_null() {
        return;
    }
    // SAFETY: `MALLOC_TRIM`'s invariant. The function has this type in every C library.
    let malloc_trim: unsafe extern "C" fn(usize) -> c_int = unsafe { mem::transmute(function) };
    let start = Instant::now();
    // SAFETY: the function may be called at any time outside of the C library's allocator.
    preserving_errno(|| _ = unsafe { malloc_trim(0) });
    TRIMMER.note_trimmed(coarse_now(), start.elapsed());
}

/// Decides when to trim. Times are in microseconds.
///
/// If two threads update a counter at the same time, one update may be lost, which only shifts the
/// next trim.
struct Trimmer {
    /// The number of calls until the next check of the clock.
    until_check: AtomicU32,
    /// The length of an interval, or [`NEVER`].
    interval: AtomicU64,
    /// When the current interval began, or 0 before the first one.
    began: AtomicU64,
    /// The number of all requests, and their bytes.
    requests: AtomicUsize,
    bytes: AtomicUsize,
    /// The bytes of those requests in the current interval that are for at least [`LARGE`] bytes.
    large: AtomicUsize,
    /// The number of blocks in use, and its extremes in the current interval.
    live: AtomicIsize,
    lowest: AtomicIsize,
    highest: AtomicIsize,
    /// The number of calm intervals since the last one that was not calm.
    calm: AtomicUsize,
    /// The bytes by which memory in use has changed since the last trim.
    changed: AtomicUsize,
    /// No trim takes place before this time. A thread that trims sets it to a later time first.
    pause_ends: AtomicU64,
}

/// After this time, another thread may trim even if a trim has not ended, in microseconds.
const LONGEST_TRIM: u64 = 60_000_000;

/// A time that no clock reaches.
const NEVER: u64 = u64::MAX;

/// A trim is not repeated before memory in use has changed by this many bytes.
const WORTHWHILE: usize = 1 << 20;

impl Trimmer {
    const fn new() -> Self {
        Self {
            until_check: AtomicU32::new(CALLS),
            interval: AtomicU64::new(NEVER),
            began: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            large: AtomicUsize::new(0),
            live: AtomicIsize::new(0),
            lowest: AtomicIsize::new(0),
            highest: AtomicIsize::new(0),
            calm: AtomicUsize::new(0),
            changed: AtomicUsize::new(0),
            pause_ends: AtomicU64::new(0),
        }
    }

    fn set_decay(&self, decay: Option<Duration>) {
        let interval = decay.map_or(NEVER, |decay| micros(decay * 2 / 5));
        self.interval.store(interval, Relaxed);
    }

    /// Notes that the number of blocks in use has changed by `more`.
    #[inline]
    fn note_live(&self, more: isize) {
        let live = self.live.load(Relaxed).wrapping_add(more);
        self.live.store(live, Relaxed);
        if more > 0 && live > self.highest.load(Relaxed) {
            self.highest.store(live, Relaxed);
        } else if more < 0 && live < self.lowest.load(Relaxed) {
            self.lowest.store(live, Relaxed);
        }
    }

    /// Notes a request for `size` bytes.
    #[inline]
    fn note_request(&self, size: usize) {
        let add = |to: &AtomicUsize, more| to.store(to.load(Relaxed).wrapping_add(more), Relaxed);
        add(&self.requests, 1);
        add(&self.bytes, size);
        if size >= LARGE {
            add(&self.large, size);
        }
    }

    /// Counts a call. Returns true if the caller must trim now.
    #[inline]
    fn is_due(&self, clock: impl FnOnce() -> Duration) -> bool {
        let left = self.until_check.load(Relaxed).wrapping_sub(1);
        self.until_check.store(left, Relaxed);
        if left > 0 && left < CALLS { false } else { self.check(clock) }
    }

    #[cold]
    #[inline(never)]
    fn check(&self, clock: impl FnOnce() -> Duration) -> bool {
        self.until_check.store(CALLS, Relaxed);
        let interval = self.interval.load(Relaxed);
        if interval == NEVER {
            return false;
        }
        let now = micros(clock());
        let began = self.began.load(Relaxed);
        let elapsed = now.saturating_sub(began);
        if began > 0 && elapsed < interval {
            return false;
        }
        self.began.store(now, Relaxed);
        if began == 0 {
            return false;
        }
        let change = self.take_change();
        let changed = self.changed.load(Relaxed).saturating_add(change);
        self.changed.store(changed, Relaxed);
        let is_calm = change as u64 <= elapsed.saturating_mul(CALM);
        let calm = if is_calm { self.calm.load(Relaxed).saturating_add(1) } else { 0 };
        self.calm.store(calm, Relaxed);
        let pause_ends = self.pause_ends.load(Relaxed);
        let is_due =
            (interval == 0 || calm >= CALM_INTERVALS) && changed >= WORTHWHILE && now >= pause_ends;
        // No thread may trim before the time `pause_ends`. A thread that is about to trim sets this
        // time to `LONGEST_TRIM` from now, which keeps all other threads from trimming at the same
        // time, unless the trim takes longer. After the trim, the thread sets `pause_ends` to a
        // time that depends on how long the trim took. If another thread forks during the trim, the
        // child has no trimming thread that could do so, and therefore trims only after
        // `LONGEST_TRIM` has passed.
        let claimed = now.saturating_add(LONGEST_TRIM);
        is_due && self.pause_ends.compare_exchange(pause_ends, claimed, Relaxed, Relaxed).is_ok()
    }

    /// Returns how many bytes of memory in use have changed in the current interval, and begins the
    /// next interval.
    ///
    /// Each block counts with the mean size of all requests. Requests for at least [`LARGE`] bytes
    /// also count by themselves.
    fn take_change(&self) -> usize {
        let large = self.large.swap(0, Relaxed);
        let live = self.live.load(Relaxed);
        let [lowest, highest] =
            [&self.lowest, &self.highest].map(|extreme| extreme.swap(live, Relaxed));
        let mean = self.bytes.load(Relaxed) / self.requests.load(Relaxed).max(1);
        highest.abs_diff(lowest).saturating_mul(mean).saturating_add(large)
    }

    /// Notes that a trim ended at `now` and lasted for `took`.
    fn note_trimmed(&self, now: Duration, took: Duration) {
        self.changed.store(0, Relaxed);
        self.pause_ends.store(micros(now + took * PART_OF_TIME), Relaxed);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(NEVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MIB: usize = 1 << 20;

    fn with_decay(decay: Option<Duration>) -> Trimmer {
        let trimmer = Trimmer::new();
        trimmer.set_decay(decay);
        trimmer
    }

    /// Allocates and frees `bytes` bytes in blocks of `size` until the clock is checked. Returns
    /// true if a trim is due.
    fn is_due(trimmer: &Trimmer, now: Duration, bytes: usize, size: usize) -> bool {
        let blocks = (bytes / size).max(1);
        let mut is_due = false;
        for _ in 0..(CALLS as usize).div_ceil(blocks) {
            for _ in 0..blocks {
                trimmer.note_live(1);
                trimmer.note_request(size);
                is_due |= trimmer.is_due(|| now);
            }
            (0..blocks).for_each(|_| trimmer.note_live(-1));
        }
        is_due
    }

    #[test]
    fn a_trim_is_due_after_two_calm_intervals() {
        let trimmer = with_decay(Some(SECOND));
        assert!(!is_due(&trimmer, 5 * SECOND, 1000 * MIB, 1000), "the first interval");
        assert!(!is_due(&trimmer, 6 * SECOND, 0, 1000), "1000 MiB were used in this interval");
        assert!(!is_due(&trimmer, 6 * SECOND + SECOND / 5, 0, 1000), "no interval has ended");
        assert!(!is_due(&trimmer, 7 * SECOND, 0, 1000), "one interval was calm");
        assert!(is_due(&trimmer, 8 * SECOND, 0, 1000));
    }

    #[test]
    fn a_program_that_uses_much_memory_again_and_again_is_not_trimmed() {
        for size in [1000, 80 * MIB] {
            let trimmer = with_decay(Some(SECOND));
            let mut seconds = 1..100;
            assert!(seconds.all(|second| !is_due(&trimmer, second * SECOND, 80 * MIB, size)));
        }
    }

    #[test]
    fn a_trim_is_not_repeated_if_the_program_needs_little_memory_however_often() {
        let trimmer = with_decay(Some(SECOND));
        let mut seconds = 1..10;
        assert!(seconds.any(|second| is_due(&trimmer, second * SECOND, 4 * MIB, 1000)));
        trimmer.note_trimmed(4 * SECOND, Duration::ZERO);
        is_due(&trimmer, 10 * SECOND, 0, 1000);
        trimmer.note_trimmed(10 * SECOND, Duration::ZERO);
        assert!((11..99).all(|second| !is_due(&trimmer, second * SECOND, 1000, 1000)));
        assert!((100..109).any(|second| is_due(&trimmer, second * SECOND, MIB, 1000)));
    }

    #[test]
    fn trims_take_a_small_part_of_the_time() {
        let trimmer = with_decay(Some(Duration::ZERO));
        assert!((1..3).any(|second| is_due(&trimmer, second * SECOND, 2 * MIB, 1000)));
        trimmer.note_trimmed(3 * SECOND, SECOND / 16);
        let due = (4..100).find(|second| is_due(&trimmer, *second * SECOND, 2 * MIB, 1000));
        assert_eq!(due, Some(11), "a sixteenth of a second is one part in 128 of eight seconds");
    }

    #[test]
    fn a_drop_of_large_blocks_leads_to_a_trim_even_if_all_later_requests_are_small() {
        let trimmer = with_decay(Some(SECOND));
        for _ in 0..400 {
            trimmer.note_live(1);
            trimmer.note_request(MIB);
        }
        assert!((1..10).any(|second| is_due(&trimmer, second * SECOND, 1000, 1000)));
        trimmer.note_trimmed(10 * SECOND, Duration::ZERO);
        (0..396).for_each(|_| trimmer.note_live(-1));
        assert!((11..20).any(|second| is_due(&trimmer, second * SECOND, 1000, 1000)));
    }

    #[test]
    fn one_thread_trims_at_a_time() {
        let trimmer = with_decay(Some(Duration::ZERO));
        assert!((1..3).any(|second| is_due(&trimmer, second * SECOND, 2 * MIB, 1000)));
        assert!((3..60).all(|second| !is_due(&trimmer, second * SECOND, 2 * MIB, 1000)));
    }

    #[test]
    fn the_time_before_the_first_call_is_not_calm() {
        let trimmer = with_decay(Some(SECOND));
        let day = 24 * 60 * 60 * SECOND;
        assert!(!is_due(&trimmer, day, 4 * MIB, 1000));
        assert!(!is_due(&trimmer, day + SECOND, 4 * MIB, 1000), "one interval was calm");
        assert!(is_due(&trimmer, day + 2 * SECOND, 4 * MIB, 1000));
    }

    #[test]
    fn nothing_is_trimmed_if_memory_never_decays() {
        let trimmer = with_decay(None);
        assert!((1..100).all(|second| !is_due(&trimmer, second * SECOND, 2 * MIB, 1000)));
    }
}
