#![doc = include_str!("../README.md")]

mod abi;
mod at_signal;
mod beating;
mod c_library;
mod counted;
mod debug;
mod decide;
mod domains;
mod exports;
mod install;
mod interpreters;
mod late;
mod limit;
mod loader;
mod lower;
mod options;
mod outcome;
mod reinit;
mod report;
mod self_check;
mod settings;
#[cfg(grouped_code)]
mod start_code;
#[cfg(not(grouped_code))]
#[path = "start_code_elsewhere.rs"]
mod start_code;
mod status;
mod trimming;
mod version;

use std::{
    env,
    ffi::{c_int, c_void},
    fmt::{Display, Write},
    sync::OnceLock,
};

use host::{Output, Place};
use raw_mem::Limits;

use crate::{
    abi::CPython,
    decide::{Refusal, refuse_old},
    install::Installation,
    options::Options,
    outcome::{Outcome, carry_out},
    report::Report,
    settings::{Settings, Switch},
    version::{NEWEST, OLDEST, Version},
};

// We link the unwinder statically, because a shared unwinder would triple the cost of loading this
// library in every child process.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[link(name = "gcc_eh", kind = "static", modifiers = "-bundle")]
unsafe extern "C" {}

struct Start {
    python: CPython,
    settings: Settings,
    options: Options,
    outcome: Outcome,
}

static START: OnceLock<Start> = OnceLock::new();

/// The settings of a process that started without CPython. Set only if one of our environment
/// variables is not empty.
static WITHOUT_CPYTHON: OnceLock<Settings> = OnceLock::new();

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

/// Makes the dynamic loader call `destruct` at exit, after the functions that `atexit` registered.
#[used]
#[unsafe(link_section = ".fini_array")]
static DESTRUCTOR: extern "C" fn() = destruct;

extern "C" fn construct() {
    host::look_up();
    start();
    start_code::release();
}

#[inline(never)]
fn start() {
    if let Some(python) = CPython::find() {
        loader::list_loaded();
        // SAFETY: the loader calls this constructor before `main`, or in `dlopen`.
        let start = START.get_or_init(|| unsafe { Start::new(python) });
        if start.settings.status
            && let Err(error) = status::start(&start.python, refresh, || start.first_json())
        {
            say(format_args!("cannot create a status page: {error}"));
        }
        let sources = at_signal::Sources {
            is_installed: start.outcome.installation().is_some(),
            at_exit: report_exit,
            requests: || installation()?.requests(),
            figures: || installation()?.try_figures(),
        };
        at_signal::watch(&start.settings, sources);
        return;
    }
    // If `late` looks for a CPython at exit, the loader may call our constructor once more.
    if WITHOUT_CPYTHON.get().is_some() {
        return;
    }
    let settings = Settings::from_env();
    if settings.any {
        if let Some(refusal) = abi::version_of_program().and_then(refuse_old) {
            end_if_strict(&refusal, &settings);
            say_refused(&refusal, &settings);
        }
        WITHOUT_CPYTHON.get_or_init(|| settings);
    }
}

fn installation() -> Option<&'static Installation> {
    START.get()?.outcome.installation()
}

fn report_exit() {
    if let Some(start) = START.get() {
        start.report();
    }
}

extern "C" fn destruct() {
    if let Some(start) = START.get() {
        status::end(|| start.json());
        start.report();
    } else if let Some(settings) = WITHOUT_CPYTHON.get() {
        report_late(settings);
    }
}

/// Returns unused memory to the system.
///
/// Python code calls this function as `ctypes.CDLL(None).obmalloc_trim()`. If the calling thread
/// does not hold the GIL, the function takes the GIL.
///
/// In CPython 3.11 or earlier, a thread that runs a subinterpreter must not hold the GIL when it
/// calls this function, so it must not use `ctypes.PyDLL`, which keeps the GIL. The function takes
/// the GIL with `PyGILState_Ensure`. In a subinterpreter, `PyGILState_Ensure` does not notice that
/// the thread already holds the GIL, and waits forever.
///
/// The function trims the heap of the current interpreter, and the heaps that no interpreter or
/// thread owns. It cannot trim a heap with another owner, because only the owner may change that
/// heap. From such a heap, the system gets back only some pages. Every block in these pages was
/// freed by another thread, and the owner has not reclaimed any of these blocks yet. Finally, the
/// function trims the C library's `malloc`, which serves most requests above 512 bytes.
///
/// Returns the number of bytes that the heaps returned to the system, or 0 if our heap is not
/// installed or CPython is not initialised. The number does not include memory of the C library,
/// because the C library does not report how much it returned.
#[unsafe(no_mangle)]
pub extern "C" fn obmalloc_trim() -> usize {
    let Some(Start { python, outcome: Outcome::Installed(installation), .. }) = START.get() else {
        return 0;
    };
    // SAFETY: `with_gil` calls the closure while this thread holds the GIL.
    python.with_gil(|| unsafe { installation.trim() }).unwrap_or(0)
}

/// Does what [`obmalloc_trim`] does, for a caller that holds the GIL.
///
/// # Safety
///
/// - The calling thread must hold the GIL of an interpreter.
unsafe fn trim_current() -> usize {
    let Some(Start { outcome: Outcome::Installed(installation), .. }) = START.get() else {
        return 0;
    };
    // SAFETY: the contract is the same.
    unsafe { installation.trim() }
}

/// Refreshes the status page.
///
/// # Safety
///
/// - The calling thread must hold the main interpreter's GIL.
unsafe extern "C" fn refresh(_: *mut c_void) -> c_int {
    if let Some(start) = START.get() {
        // SAFETY: the contract is the same.
        status::refresh(|| unsafe { trim_current() }, || start.json());
    }
    0
}

/// Reports a CPython that was loaded too late for the heap, if there is one.
#[cold]
fn report_late(settings: &Settings) {
    let Some((python, path)) = late::find() else { return };
    let refusal = match settings.switch {
        Ok(Switch::Off) => Refusal::SwitchedOff,
        _ => Refusal::LoadedLate(path.file_name().unwrap_or(path.as_os_str()).to_owned()),
    };
    if !matches!(settings.stats.as_deref(), Some(Place::Stderr)) {
        say_refused(&refusal, settings);
    }
    let options = Options::from_process();
    let outcome = Outcome::refused(refusal);
    Start { python, settings: settings.clone(), options, outcome }.report();
}

fn say_refused(refusal: &Refusal, settings: &Settings) {
    let has_limit = settings.limits != Limits::NONE;
    if settings.is_silent() || (refusal.is_requested() && !has_limit) {
        return;
    }
    let limit = if has_limit { ", so no limit is in force" } else { "" };
    say(format_args!("not installed{limit}: {refusal}"));
}

/// The exit code if `OBMALLOC=strict` is set and the heap cannot be installed.
///
/// The command `obmalloc` uses the same exit code for its own failures.
const NOT_INSTALLED: c_int = 125;

/// Ends the process if `OBMALLOC=strict` is set, because the heap is refused.
fn end_if_strict(refusal: &Refusal, settings: &Settings) {
    if settings.switch != Ok(Switch::Strict) {
        return;
    }
    say(format_args!("OBMALLOC=strict ends this process, because the heap is refused: {refusal}"));
    // SAFETY: `_exit` may be called at any time. `main` has not begun, so nothing is unfinished.
    unsafe { libc::_exit(NOT_INSTALLED) }
}

fn say_newer(version: Version, settings: &Settings) {
    if !settings.is_silent() {
        say(format_args!(
            "CPython {version} is newer than {OLDEST} to {NEWEST}, but passed the self-check, so \
             it uses the heap (OBMALLOC=strict refuses it)"
        ));
    }
}

impl Start {
    /// # Safety
    ///
    /// - As for [`carry_out`].
    #[cold]
    unsafe fn new(python: CPython) -> Self {
        let settings = Settings::from_env();
        if !settings.is_silent() {
            settings.errors.iter().for_each(say);
        }
        let wants_debug = settings.switch == Ok(Switch::Debug);
        let other_choice = wants_debug.then(request_debug_hooks).flatten();
        let options = Options::from_process();
        if wants_debug && options.ignores_environment {
            say("OBMALLOC=debug has no effect with -E and -I, which -X dev has");
        } else if let Some(choice) = other_choice {
            say(format_args!("OBMALLOC=debug has no effect with PYTHONMALLOC={choice}"));
        }
        // SAFETY: our caller has promised the same (contract of this function).
        let (outcome, plan) = unsafe { carry_out(&python, &settings, &options) };
        if let Outcome::Refused { refusal, .. } = &outcome {
            end_if_strict(refusal, &settings);
            say_refused(refusal, &settings);
        }
        if outcome.installation().is_some() {
            let host = trimming::Host { trim: trim_current, say: |line| say(line) };
            trimming::watch(&python, &settings, host);
        }
        if let Some(version) = plan.and_then(|plan| plan.newer) {
            say_newer(version, &settings);
        }
        Self { python, settings, options, outcome }
    }

    /// Returns the current statistics as JSON.
    fn json(&self) -> String {
        Report::new(&self.python, &self.outcome).json()
    }

    /// Returns the statistics that the status page contains at first, or `None` if we do not know
    /// yet whether CPython will use the heap. We create the page when our library is loaded, and
    /// usually we have then just installed the heap or refused to install it. If the user has set
    /// `PYTHONMALLOC=debug` or `-X dev`, however, CPython sets its own allocators when it starts,
    /// and we replace them with the heap only after that. In this case, the function returns
    /// `None`.
    fn first_json(&self) -> Option<String> {
        let is_decided =
            self.outcome.installation().is_none() || self.outcome.is_in_force(&self.python);
        is_decided.then(|| self.json())
    }

    /// Writes the requested statistics, or reports that another allocator has replaced the heap.
    fn report(&self) {
        let Self { python, settings, options, outcome } = self;
        if let Some(place) = settings.stats.as_ref().filter(|_| settings.moments.exit) {
            Report::new(python, outcome).write(place);
            if matches!(**place, Place::Stderr) {
                // The report on stderr already contains everything that would be printed below.
                return;
            }
        }
        let Some(installation) = outcome.installation() else { return };
        if !outcome.is_in_force(python) {
            if settings.any && !settings.is_silent() {
                say(format_args!("not in force at exit: {}", report::REPLACED));
            }
        } else if options.malloc_stats
            && let Some(stats) = installation.heap_stats(python)
        {
            let _ = write!(Output::stderr(), "{stats}");
        }
    }
}

/// Sets the environment variable `PYTHONMALLOC` to `debug`, so that CPython uses debug hooks.
///
/// `PYTHONMALLOC` stays set to `debug`, so that CPython also uses debug hooks in a second
/// `Py_Initialize`.
///
/// If the user has already set `PYTHONMALLOC`, the function leaves the variable unchanged. If the
/// user's value selects an allocator without debug hooks, such as `malloc`, the function returns
/// this value. In all other cases, it returns `None`.
fn request_debug_hooks() -> Option<String> {
    const CHOICE: &str = "PYTHONMALLOC";
    let choice = env::var_os(CHOICE).unwrap_or_default();
    if choice.is_empty() {
        // SAFETY: this runs before `main`, so no other thread uses the environment.
        unsafe { env::set_var(CHOICE, "debug") };
        return None;
    }
    let choice = choice.to_string_lossy();
    (!choice.ends_with("debug")).then(|| choice.into_owned())
}

/// Prints one line on stderr, and ignores errors such as a closed stderr.
fn say(line: impl Display) {
    host::say(format_args!("{line}"));
}
