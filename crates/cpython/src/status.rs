//! The status page of this process, which `obmalloc ps`, `stats` and `trim` use.
//!
//! The status page exists only if the environment variable `OBMALLOC_STATUS` is on.
//!
//! A refresh of the page carries out a client's command, counts the blocks of the heap and
//! publishes the figures. A refresh is due if the figures are a second old or a client has sent a
//! command. We check this in requests of more than 512 bytes, because smaller requests are far more
//! frequent. Only one in 16 of the larger requests reads the clock. The heap can be in use during a
//! request, so the request does not refresh the page itself. Instead, it schedules the function
//! passed to [`start`]. CPython then calls this function in its main thread between two
//! instructions of Python code.
//!
//! If a process exits normally less than a second after it created its status page, it removes the
//! page. A process that ends with `_exit`, however, does not run the code that removes the page. If
//! forked children created their pages at once, each child that soon ends with `_exit` would leave
//! a page behind. A child therefore waits until one to two seconds have passed since the fork. It
//! creates its page in the next request for more than 512 bytes that reads the clock.
//!
//! A child process inherits the mapping of its parent's page, but must not change that page. After
//! `fork`, a fork handler makes the child stop using the page. However, a child that was created by
//! a system call or by glibc's `_Fork` runs no fork handler. Before a process schedules a refresh,
//! changes its page or removes it, we therefore compare the process id with that of the page
//! (see [`own`]). If they differ, the process stops using the page.

use std::{
    ffi::{c_int, c_void},
    io, ptr,
    sync::{
        OnceLock,
        atomic::{
            AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use raw_mem::without_cancellation;
use status::{StatusFile, this_process};

use crate::abi::{CPython, PendingFunctions};

/// The time after which an active process renews its figures, in seconds.
const RENEWAL: u64 = 1;

/// A process that ends before this time has passed removes its page, so short commands leave no
/// files.
const SHORT: Duration = Duration::from_secs(1);

/// There is no page.
const OFF: u8 = 0;
/// The process has a page.
const ON: u8 = 1;
/// The process is a child of a process with a page, and has no page of its own yet.
const FORKED: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(OFF);

/// # Invariant
///
/// Null, or a leaked [`Shown`].
static SHOWN: AtomicPtr<Shown> = AtomicPtr::new(ptr::null_mut());

/// True if CPython will call the function that refreshes the page.
static IS_SCHEDULED: AtomicBool = AtomicBool::new(false);

/// The time at which the figures were last renewed, as a value of [`seconds`].
static RENEWED: AtomicU64 = AtomicU64::new(0);

/// The number of requests above 512 bytes. If two threads count at the same time, one request may
/// not be counted.
static REQUESTS: AtomicUsize = AtomicUsize::new(0);

/// One in this many requests above 512 bytes reads the clock.
const CLOCK: usize = 16;

/// The function that CPython calls to refresh the page.
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

/// Creates the status page of this process. The library's constructor calls this function.
///
/// Other programs read the status page to see how much memory this process uses. At first, the page
/// contains the text that `first` returns, or no text if `first` returns `None`. The function
/// `refresh` must replace this text with the current figures.
///
/// CPython calls `refresh` in its main thread, which holds the main interpreter's GIL during the
/// call. If a refresh is due, our heap schedules this call during a request for more than 512 bytes
/// (see [`beat`]). If our heap is not installed, `refresh` is never called.
///
/// # Errors
///
/// Fails if the status page cannot be created.
///
/// If the process does not export CPython's function `Py_AddPendingCall`, `start` creates no page
/// and returns `Ok`, because we could not keep the figures up to date without this function.
pub(crate) fn start(
    python: &CPython,
    refresh: Refresh,
    first: impl FnOnce() -> Option<String>,
) -> io::Result<()> {
    let Some(functions) = PendingFunctions::of_process() else { return Ok(()) };
    let client = CLIENT.get_or_init(|| Client { python: *python, functions, refresh });
    // SAFETY: `after_fork` may be called in a forked child, because it only changes atomics and
    // reads a clock.
    unsafe { libc::pthread_atfork(None, None, Some(after_fork)) };
    create(*client)?;
    // `RENEWED` stays 0, so the first refresh is due at once.
    if let (Some(json), Some(shown)) = (first(), shown()) {
        shown.page.publish(json.as_bytes());
    }
    Ok(())
}

/// Makes a forked child create a page of its own.
unsafe extern "C" fn after_fork() {
    forget(SHOWN.load(Relaxed));
}

/// Makes this process stop using the parent's page `inherited`, and later create its own page.
///
/// Does nothing if `inherited` is null, or if the process has already stopped using this page.
/// Neither `inherited` nor the mapping of the page is ever freed, because another thread may be
/// using them.
///
/// A child that was created with `vfork` shares its parent's memory, including the variable that
/// points to the page. If such a child calls this function, its parent therefore stops using the
/// status page, too. The parent then creates a new one.
fn forget(inherited: *mut Shown) {
    if inherited.is_null() {
        return;
    }
    // INVARIANT: null.
    if SHOWN.compare_exchange(inherited, ptr::null_mut(), Relaxed, Relaxed).is_err() {
        return;
    }
    IS_SCHEDULED.store(false, Relaxed);
    RENEWED.store(seconds(), Relaxed);
    STATE.store(FORKED, Relaxed);
}

fn create(client: Client) -> io::Result<()> {
    // SAFETY: no process makes the file of a page shorter. Only programs of this user have access
    // to it, and neither this library nor the command `obmalloc` shortens it.
    let page = unsafe { StatusFile::create(this_process()) }?;
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

/// Returns the page of this process, or `None` if the process has no page of its own.
///
/// If the process still uses its parent's page, this function makes it stop.
///
/// This makes a system call, so it is called only if the page is about to change.
fn own() -> Option<&'static Shown> {
    let shown = shown()?;
    if !shown.page.is_own() {
        forget(ptr::from_ref(shown).cast_mut());
        return None;
    }
    Some(shown)
}

/// Schedules a refresh of the process's status page if one is due. Called for requests for more
/// than 512 bytes.
///
/// A refresh is due if the figures on the page are old, or if a client has written a command to the
/// page. A forked child has no page at first, so this function creates one when more than about a
/// second has passed since the fork.
#[inline]
pub(crate) fn beat() {
    if STATE.load(Relaxed) != OFF {
        beat_slow();
    }
}

#[cold]
fn beat_slow() {
    let requests = REQUESTS.load(Relaxed);
    REQUESTS.store(requests.wrapping_add(1), Relaxed);
    let reads_clock = requests.is_multiple_of(CLOCK);
    if STATE.load(Relaxed) == FORKED
        && reads_clock
        && seconds() > RENEWED.load(Relaxed) + RENEWAL
        && STATE.compare_exchange(FORKED, OFF, Relaxed, Relaxed).is_ok()
        && let Some(client) = CLIENT.get()
    {
        // If this fails, the child works as usual, but `obmalloc ps` does not list it.
        let _ = without_cancellation(|| create(*client));
    }
    let Some(Shown { page, client, .. }) = shown() else { return };
    let is_old = || seconds() >= RENEWED.load(Relaxed) + RENEWAL;
    let is_due = page.asked().is_some() || (reads_clock && is_old());
    if is_due && client.python.is_initialized() && !IS_SCHEDULED.swap(true, Relaxed) {
        let is_scheduled = own().is_some_and(|Shown { client, .. }| {
            // SAFETY: the function may be called by any thread of an initialised CPython.
            unsafe { (client.functions.add_pending_call)(client.refresh, ptr::null_mut()) == 0 }
        });
        if !is_scheduled {
            IS_SCHEDULED.store(false, Relaxed);
        }
    }
}

/// Carries out the command of a client, if there is one, and publishes the figures as JSON.
pub(crate) fn refresh(trim: impl FnOnce() -> usize, json: impl FnOnce() -> String) {
    IS_SCHEDULED.store(false, Relaxed);
    let Some(shown) = own() else { return };
    if let Some(command) = shown.page.asked() {
        shown.page.reply(command, trim() as u64);
    }
    shown.publish(&json());
}

impl Shown {
    fn publish(&self, json: &str) {
        RENEWED.store(seconds(), Relaxed);
        self.page.publish(json.as_bytes());
    }
}

/// Publishes the final figures. If the process ran only for a short time, removes its page instead.
pub(crate) fn end(json: impl FnOnce() -> String) {
    let Some(shown) = own() else { return };
    if shown.created.elapsed() < SHORT {
        let _ = shown.page.remove();
        return;
    }
    shown.publish(&json());
    shown.page.end();
}

/// Returns the time in seconds of a clock that is cheap to read, plus [`RENEWAL`].
fn seconds() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    // `RENEWED` is 0 at first. Because of the addition, the figures are due at once, even just
    // after a system start.
    time.tv_sec.unsigned_abs() + RENEWAL
}
