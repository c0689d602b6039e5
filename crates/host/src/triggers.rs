//! The triggers of reports: signals, a timer, forks and `_exit`.
//!
//! ```text
//!   a named signal, the timer ──► handler ──► report ──► back to the program
//!   a terminating signal ───────► handler ──► report ──► default action, which ends the process
//!   _exit, _Exit ───────────────► our _exit ► report ──► the C library's _exit
//!   quick_exit ─────────────────► our last function of at_quick_exit ► report
//!   fork ───────────────────────► in the child: a timer of its own
//! ```
//!
//! We do not start a thread that writes the reports, because the program could notice the
//! additional thread. CPython, for example, warns when a process with several threads forks.
//!
//! This library exports its own versions of `sigaction` and `signal`, which hide our signal
//! handlers from the program:
//!
//! - If the program asks for the current handler of a signal and that handler is ours, our
//!   functions report the default action instead.
//! - If the program restores the default action of a signal that causes a report, our functions
//!   install our handler instead.
//! - If the program sets a handler of its own, this handler replaces ours.

use std::{
    ffi::CStr,
    mem::{self, MaybeUninit},
    ptr,
    sync::atomic::{
        AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread,
    time::Duration,
};

use libc::{c_int, c_void, sigaction as Action, sighandler_t, siginfo_t};
use raw_mem::without_cancellation;

use crate::{
    moments::{Moment, Moments, timer_signal},
    output::errno,
};

/// A function that writes a report. [`watch`] lists what it must not do.
pub type Trigger = fn(Moment);

/// # Invariant
///
/// Null or a [`Trigger`] that meets the contract of [`watch`].
static TRIGGER: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
/// The id of the process that may write reports. A `vfork` child, which shares this variable, must
/// not write reports.
static PROCESS: AtomicU32 = AtomicU32::new(0);
static AT_EXIT: AtomicBool = AtomicBool::new(false);
/// The signal that asks for a report, or 0.
static NAMED: AtomicI32 = AtomicI32::new(0);
/// The signal of the timer, or 0.
static TIMER: AtomicI32 = AtomicI32::new(0);
/// The time between two signals of the timer, in milliseconds.
static INTERVAL: AtomicUsize = AtomicUsize::new(0);
/// A bit for each signal on which we installed our handler. The program may have replaced it.
static WATCHED: AtomicU64 = AtomicU64::new(0);
static IS_WATCHING: AtomicBool = AtomicBool::new(false);

/// The thread that is writing a report, as a value of [`this_thread`], or 0.
static REPORTING: AtomicUsize = AtomicUsize::new(0);

/// How long the last report of a process waits for a report of another thread, in milliseconds.
const LONGEST_WAIT: u32 = 500;

/// True once the process has called `_exit`. Our signal handler then lets the process complete its
/// report.
static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// The signals that users and service managers send to stop a program, and that end it by default.
const TERMINATING: [c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// Calls `trigger` at each of `moments` from now on, except at a normal exit.
///
/// This function must be called at most once.
///
/// # Safety
///
/// A signal can interrupt any code, such as an allocation or code that holds a lock.
///
/// - `trigger` must be safe to call in a signal handler. It must not allocate or free memory, wait
///   for a lock, or access data that the interrupted code may be changing.
/// - At [`Moment::Exit`], `trigger` may do these things if no signal handler of the program calls
///   `_exit` or `quick_exit`.
///
/// ```no_run
/// # use host::{Moments, watch};
/// # let moments = Moments::of("MOMENTS", b"1s").unwrap();
/// // SAFETY: the function does nothing.
/// unsafe { watch(&moments, |_| ()) };
/// ```
///
/// ```compile_fail,E0133
/// # use host::{Moments, watch};
/// # let moments = Moments::of("MOMENTS", b"1s").unwrap();
/// watch(&moments, |_| ());
/// ```
pub unsafe fn watch(moments: &Moments, trigger: Trigger) {
    PROCESS.store(std::process::id(), Relaxed);
    AT_EXIT.store(moments.exit, Relaxed);
    if moments.exit {
        // The functions run in reverse order of registration, so ours runs after the program's.
        // SAFETY: the function has the expected type, and this library is never unloaded.
        unsafe { __cxa_at_quick_exit(report_exit, ptr::null_mut()) };
    }
    // INVARIANT: the caller guarantees that the trigger meets the contract of this function.
    TRIGGER.store(trigger as *mut (), Release);
    if let Some(signal) = moments.signal {
        NAMED.store(signal, Relaxed);
        install(signal);
    }
    if moments.termination {
        TERMINATING.into_iter().filter(|signal| is_default(*signal)).for_each(install);
    }
    if let Some(interval) = moments.interval {
        let signal = timer_signal();
        TIMER.store(signal, Relaxed);
        INTERVAL.store(interval.as_millis() as usize, Relaxed);
        install(signal);
        start_timer();
    }
    // SAFETY: the function does not unwind, and this library is never unloaded.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    IS_WATCHING.store(true, Release);
}

unsafe extern "C" {
    /// The C library's function behind `at_quick_exit`.
    fn __cxa_at_quick_exit(function: extern "C" fn(*mut c_void), library: *mut c_void) -> c_int;
}

/// Writes the report of an exit without destructors, if reports are written at exit.
extern "C" fn report_exit(_: *mut c_void) {
    if AT_EXIT.load(Relaxed) && is_own_process() {
        IS_ENDING.store(true, Relaxed);
        report(Moment::Exit);
    }
}

/// Runs in the child of every fork. A child has a new process id and does not inherit timers.
extern "C" fn in_child() {
    PROCESS.store(std::process::id(), Relaxed);
    // The parent may be writing a report, but the child is not.
    REPORTING.store(0, Relaxed);
    IS_ENDING.store(false, Relaxed);
    if TIMER.load(Relaxed) != 0 {
        start_timer();
    }
}

/// Returns true unless the caller is a child of `vfork`, which shares the memory of its parent.
fn is_own_process() -> bool {
    PROCESS.load(Relaxed) == std::process::id()
}

fn report(moment: Moment) {
    let trigger = TRIGGER.load(Acquire);
    if trigger.is_null() || !is_own_process() {
        return;
    }
    // A signal may have interrupted an allocation, during which the thread must not be cancelled.
    without_cancellation(|| {
        if begin_report(matches!(moment, Moment::Exit | Moment::Termination(_))) {
            // SAFETY: the pointer is not null, so it is a `Trigger` (invariant of `TRIGGER`).
            let trigger = unsafe { mem::transmute::<*mut (), Trigger>(trigger) };
            trigger(moment);
            REPORTING.store(0, Release);
        }
    });
}

/// Returns true if the calling thread may now write a report, and false if a report is being
/// written already. `is_last` is true at the end of the process. In this case, if another thread is
/// writing a report, the function first waits up to half a second for that thread to finish. It
/// never waits for a report of the calling thread, because a signal handler has interrupted that
/// report. It can continue only after the handler has returned.
fn begin_report(is_last: bool) -> bool {
    let this = this_thread();
    for _ in 0..=if is_last { LONGEST_WAIT } else { 0 } {
        match REPORTING.compare_exchange(0, this, Acquire, Relaxed) {
            Ok(_) => return true,
            // This thread was interrupted while it wrote a report, so it must not wait for itself.
            Err(writer) if writer == this => return false,
            Err(_) if is_last => thread::sleep(Duration::from_millis(1)),
            Err(_) => {}
        }
    }
    false
}

/// Returns a number that is not 0 and that no other live thread has.
fn this_thread() -> usize {
    // SAFETY: the C library's `errno` exists as long as its thread runs.
    unsafe { libc::__errno_location() }.addr()
}

extern "C" fn handle(signal: c_int, _info: *mut siginfo_t, _context: *mut c_void) {
    let before = errno();
    if signal == NAMED.load(Relaxed) {
        report(Moment::Signal(signal));
    } else if signal == TIMER.load(Relaxed) {
        report(Moment::Interval);
    } else if !IS_ENDING.load(Relaxed) {
        report(Moment::Termination(signal));
        end_by(signal);
    }
    // SAFETY: the C library's `errno` exists as long as its thread runs.
    unsafe { *libc::__errno_location() = before };
}

/// Ends the process with the default action of `signal`.
fn end_by(signal: c_int) {
    let mut default = zeroed();
    default.sa_sigaction = libc::SIG_DFL;
    real_sigaction(signal, &raw const default, ptr::null_mut());
    // SAFETY: `raise` accesses no memory. The signal is blocked until its handler returns.
    unsafe { libc::raise(signal) };
}

fn zeroed() -> Action {
    // SAFETY: zero is a valid value of each field.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

fn ours() -> usize {
    handle as Handler as usize
}

fn is_default(signal: c_int) -> bool {
    let mut now = zeroed();
    real_sigaction(signal, ptr::null(), &raw mut now) == 0 && now.sa_sigaction == libc::SIG_DFL
}

fn install(signal: c_int) {
    WATCHED.fetch_or(1 << signal, Relaxed);
    let action = our_action();
    real_sigaction(signal, &raw const action, ptr::null_mut());
}

fn our_action() -> Action {
    let mut action = zeroed();
    action.sa_sigaction = ours();
    // A report needs more stack than most alternate signal stacks have. Those of Rust have a few KiB.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    action
}

fn start_timer() {
    let mut event: libc::sigevent = {
        // SAFETY: zero is a valid value of each field.
        unsafe { MaybeUninit::zeroed().assume_init() }
    };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = TIMER.load(Relaxed);
    let mut timer = ptr::null_mut();
    let clock = libc::CLOCK_MONOTONIC;
    // SAFETY: both arguments are valid, and the timer is written to the third.
    if unsafe { libc::timer_create(clock, &raw mut event, &raw mut timer) } != 0 {
        return;
    }
    let interval = Duration::from_millis(INTERVAL.load(Relaxed) as u64);
    let time = libc::timespec {
        tv_sec: interval.as_secs() as libc::time_t,
        tv_nsec: interval.subsec_nanos().into(),
    };
    let setting = libc::itimerspec { it_interval: time, it_value: time };
    // SAFETY: the timer was created above.
    unsafe { libc::timer_settime(timer, 0, &raw const setting, ptr::null_mut()) };
}

/// The original version of a function that this library replaces.
///
/// The original version is in the next library of the loader's search order, usually the C library.
struct Real {
    name: &'static CStr,
    /// The address of the function, or null before it is looked up.
    function: AtomicPtr<c_void>,
}

static SIGACTION: Real = Real::new(c"sigaction");
static SIGNAL: Real = Real::new(c"signal");
static SYSV_SIGNAL: Real = Real::new(c"__sysv_signal");
static EXIT: Real = Real::new(c"_exit");

impl Real {
    const fn new(name: &'static CStr) -> Self {
        Self { name, function: AtomicPtr::new(ptr::null_mut()) }
    }

    fn address(&self) -> *mut c_void {
        let mut function = self.function.load(Relaxed);
        if function.is_null() {
            // SAFETY: the name is a C string.
            function = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
            self.function.store(function, Relaxed);
        }
        function
    }

    /// Returns the function. `T` must be the type that the C library declares for it.
    fn get<T: Copy>(&self) -> Option<T> {
        const { assert!(size_of::<T>() == size_of::<*mut c_void>()) };
        let function = self.address();
        // SAFETY: every caller passes the type that the C library declares for the function.
        (!function.is_null()).then(|| unsafe { mem::transmute_copy(&function) })
    }
}

/// Looks up the C library's functions that our versions call. The library's constructor must call
/// this function.
///
/// A later look-up could deadlock, because a look-up waits for the lock of the dynamic loader. For
/// example, a thread that holds Python's GIL calls `_exit`, and its look-up waits for the loader's
/// lock. Another thread holds this lock in `dlopen`, where it runs a constructor that waits for the
/// GIL. Neither thread can continue.
pub fn look_up() {
    for real in [&SIGACTION, &SIGNAL, &SYSV_SIGNAL, &EXIT] {
        real.address();
    }
}

type SigAction = unsafe extern "C" fn(c_int, *const Action, *mut Action) -> c_int;

fn real_sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int {
    let Some(real) = SIGACTION.get::<SigAction>() else { return -1 };
    // SAFETY: every caller passes arguments that are null or valid.
    unsafe { real(signal, new, old) }
}

/// Calls the C library's `sigaction`, but hides our handlers from the program.
///
/// # Safety
///
/// - `new` must be null or point to an action.
/// - `old` must be null or valid for writing an action.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sigaction(
    signal: c_int,
    new: *const Action,
    old: *mut Action,
) -> c_int {
    if !IS_WATCHING.load(Acquire) {
        return real_sigaction(signal, new, old);
    }
    // SAFETY: `new` is null or an action (contract).
    let restores = unsafe { new.as_ref() }.is_some_and(|new| new.sa_sigaction == libc::SIG_DFL);
    let (our_action, mut before) = (our_action(), zeroed());
    let new = if restores && is_watched(signal) { &raw const our_action } else { new };
    let result = real_sigaction(signal, new, &raw mut before);
    // SAFETY: `old` is null or writable (contract).
    if let Some(old) = unsafe { old.as_mut() }.filter(|_| result == 0) {
        let is_hidden = before.sa_sigaction == ours();
        *old = if is_hidden { zeroed() } else { before };
    }
    result
}

fn is_watched(signal: c_int) -> bool {
    (1..64).contains(&signal) && WATCHED.load(Relaxed) >> signal & 1 != 0
}

/// Calls the C library's `signal`, but hides our handlers from the program.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    set_handler(&SIGNAL, signal, handler)
}

/// Calls the C library's `__sysv_signal`, but hides our handlers from the program, as our
/// function [`signal`](fn@signal) does.
///
/// If a program is compiled as strict ISO C, glibc's headers make it call `__sysv_signal` wherever
/// it uses `signal`. A handler that was set with `__sysv_signal` runs only once, because the
/// signal's default action is restored when the handler is called.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn __sysv_signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    set_handler(&SYSV_SIGNAL, signal, handler)
}

/// Sets the handler of a signal through `real`, the C library's `signal` or `__sysv_signal`.
///
/// If the program restores the default action of a signal that causes a report, this function
/// installs our handler instead, so that the signal continues to cause reports.
fn set_handler(real: &Real, signal: c_int, handler: sighandler_t) -> sighandler_t {
    type Signal = unsafe extern "C" fn(c_int, sighandler_t) -> sighandler_t;
    let before = if IS_WATCHING.load(Acquire) && handler == libc::SIG_DFL && is_watched(signal) {
        let (new, mut before) = (our_action(), zeroed());
        match real_sigaction(signal, &raw const new, &raw mut before) {
            0 => before.sa_sigaction,
            _ => libc::SIG_ERR,
        }
    } else if let Some(real) = real.get::<Signal>() {
        // SAFETY: the program passes a handler that it may pass to the C library.
        unsafe { real(signal, handler) }
    } else {
        libc::SIG_ERR
    };
    if before == ours() { libc::SIG_DFL } else { before }
}

/// Ends the process immediately. Writes a report first, if reports are written at exit.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn _exit(status: c_int) -> ! {
    end_without_destructors(status)
}

/// Does what [`_exit`] does.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn _Exit(status: c_int) -> ! {
    end_without_destructors(status)
}

fn end_without_destructors(status: c_int) -> ! {
    report_exit(ptr::null_mut());
    if let Some(real) = EXIT.get::<unsafe extern "C" fn(c_int)>() {
        // SAFETY: the function may be called with any status.
        unsafe { real(status) };
    }
    std::process::abort()
}
