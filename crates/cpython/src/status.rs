//! The status page of this process, by which `obmalloc ps`, `stats` and `trim` reach it.
//!
//! The page exists if `OBMALLOC_STATUS` is set. The heap's figures can be read, and the heap trimmed,
//! only between two instructions of Python code. A request above 512 bytes bypasses the heap anyway,
//! so it checks whether a second has passed or a client has asked for something. If so, it schedules
//! the function passed to [`start`], and CPython calls that function in its main thread as soon as
//! it can.
//!
//! A forked child creates a page of its own at such a request, unless it lives for a second or two
//! only: children that end with `_exit` leave their pages.

use std::{
    env,
    ffi::{c_int, c_void},
    io, process, ptr,
    sync::{
        OnceLock,
        atomic::{
            AtomicBool, AtomicPtr, AtomicU8, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use status::StatusFile;

use crate::abi::{CPython, PendingFunctions};

const VARIABLE: &str = "OBMALLOC_STATUS";

/// The time after which the figures of an active process are renewed, in seconds.
const RENEWAL: u64 = 1;

/// A process that lived for a shorter time removes its page, so that short commands leave nothing.
const SHORT: Duration = Duration::from_secs(10);

/// There is no page.
const OFF: u8 = 0;
/// The process has a page.
const ON: u8 = 1;
/// The process was forked from one with a page, and has none yet.
const FORKED: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(OFF);

/// # Invariant
///
/// Null, or a leaked [`Shown`].
static SHOWN: AtomicPtr<Shown> = AtomicPtr::new(ptr::null_mut());

/// True if CPython will call the function that refreshes the page.
static IS_SCHEDULED: AtomicBool = AtomicBool::new(false);

/// The second in which the figures were renewed, on a coarse clock.
static RENEWED: AtomicU64 = AtomicU64::new(0);

/// What CPython calls to refresh the page.
type Refresh = unsafe extern "C" fn(*mut c_void) -> c_int;

struct Shown {
    page: StatusFile,
    client: Client,
    created: Instant,
}

#[derive(Clone, Copy)]
struct Client {
    python: CPython,
    functions: PendingFunctions,
    refresh: Refresh,
}

static CLIENT: OnceLock<Client> = OnceLock::new();

/// Creates the page, if the environment asks for it. Must be called before `main`.
///
/// CPython will call `refresh` in its main thread, which holds the main interpreter's GIL.
///
/// # Errors
///
/// Fails if no page can be created.
pub(crate) fn start(python: &CPython, refresh: Refresh) -> io::Result<()> {
    let value = env::var_os(VARIABLE).unwrap_or_default();
    if !["1", "on", "true", "yes"].iter().any(|word| value == *word) {
        return Ok(());
    }
    let Some(functions) = PendingFunctions::of_process() else { return Ok(()) };
    let client = CLIENT.get_or_init(|| Client { python: *python, functions, refresh });
    // SAFETY: `forget` may be called in a forked child, because it only stores to atomics.
    unsafe { libc::pthread_atfork(None, None, Some(forget)) };
    create(*client)
}

/// Makes a forked child create a page of its own. The child does not have the parent's mapping.
unsafe extern "C" fn forget() {
    if STATE.load(Relaxed) == ON {
        // INVARIANT: null.
        SHOWN.store(ptr::null_mut(), Relaxed);
        IS_SCHEDULED.store(false, Relaxed);
        RENEWED.store(seconds(), Relaxed);
        STATE.store(FORKED, Relaxed);
    }
}

fn create(client: Client) -> io::Result<()> {
    let page = StatusFile::create(process::id())?;
    let shown = Box::new(Shown { page, client, created: Instant::now() });
    RENEWED.store(0, Relaxed);
    // INVARIANT: the box is leaked.
    SHOWN.store(Box::into_raw(shown), Release);
    STATE.store(ON, Relaxed);
    Ok(())
}

fn shown() -> Option<&'static Shown> {
    // SAFETY: `SHOWN`'s invariant: a leaked value is valid forever.
    unsafe { SHOWN.load(Acquire).as_ref() }
}

/// Notices whether the page needs something. Called for each request that leaves the heap.
#[inline]
pub(crate) fn beat() {
    if STATE.load(Relaxed) != OFF {
        beat_slow();
    }
}

#[cold]
fn beat_slow() {
    if STATE.load(Relaxed) == FORKED
        && seconds() > RENEWED.load(Relaxed) + RENEWAL
        && STATE.compare_exchange(FORKED, OFF, Relaxed, Relaxed).is_ok()
        && let Some(client) = CLIENT.get()
    {
        // A child without a page works like any other process, and `obmalloc ps` does not list it.
        let _ = create(*client);
    }
    let Some(Shown { page, client, .. }) = shown() else { return };
    let is_due = seconds() >= RENEWED.load(Relaxed) + RENEWAL || page.asked().is_some();
    if is_due && client.python.is_initialized() && !IS_SCHEDULED.swap(true, Relaxed) {
        // SAFETY: the function may be called by any thread of an initialised CPython.
        let outcome =
            unsafe { (client.functions.add_pending_call)(client.refresh, ptr::null_mut()) };
        if outcome != 0 {
            IS_SCHEDULED.store(false, Relaxed);
        }
    }
}

/// Carries out what a client asked for, and publishes the figures as JSON.
pub(crate) fn refresh(trim: impl FnOnce() -> usize, json: impl FnOnce() -> String) {
    IS_SCHEDULED.store(false, Relaxed);
    let Some(shown) = shown() else { return };
    if let Some(command) = shown.page.asked() {
        shown.page.reply(command, trim() as u64);
    }
    shown.publish(&json());
}

impl Shown {
    fn publish(&self, json: &str) {
        RENEWED.store(seconds(), Relaxed);
        self.page.text().publish(json.as_bytes());
    }
}

/// Publishes the last figures, or removes the page of a process that lived only shortly.
pub(crate) fn end(json: impl FnOnce() -> String) {
    let Some(shown) = shown() else { return };
    if shown.created.elapsed() < SHORT {
        let _ = shown.page.remove();
        return;
    }
    shown.publish(&json());
    shown.page.end();
}

/// Returns the seconds of a clock that is cheap to read.
fn seconds() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    // A system that has just started must not look as if its figures were fresh.
    time.tv_sec.unsigned_abs() + RENEWAL
}
