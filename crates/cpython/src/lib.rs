#![doc = include_str!("../README.md")]

mod abi;
mod decide;
mod domains;
mod install;
mod interpreters;
mod late;
mod loader;
mod lower;
mod options;
mod reinit;
mod report;
mod settings;
mod trimming;
mod version;

use std::{
    fmt::Display,
    io::{self, Write},
    sync::OnceLock,
};

use crate::{
    abi::CPython,
    decide::{Refusal, decide},
    domains::is_in_force,
    install::Installation,
    options::Options,
    report::Report,
    settings::{Settings, StatsPlace, Switch},
};

// The unwinder is linked statically, because a shared one would triple the cost of loading this
// library in every child process.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[link(name = "gcc_eh", kind = "static", modifiers = "-bundle")]
unsafe extern "C" {}

struct Start {
    python: CPython,
    settings: Settings,
    options: Options,
    outcome: Result<Installation, Refusal>,
}

static START: OnceLock<Start> = OnceLock::new();

/// Set if the process started without CPython, but with one of our environment variables.
static WITHOUT_CPYTHON: OnceLock<Settings> = OnceLock::new();

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

/// Makes the dynamic loader call `destruct` at exit, after the functions that `atexit` registered.
#[used]
#[unsafe(link_section = ".fini_array")]
static DESTRUCTOR: extern "C" fn() = destruct;

extern "C" fn construct() {
    if let Some(python) = CPython::find() {
        START.get_or_init(|| Start::new(python));
        return;
    }
    let settings = Settings::from_env();
    if settings.any {
        WITHOUT_CPYTHON.get_or_init(|| settings);
    }
}

extern "C" fn destruct() {
    if let Some(start) = START.get() {
        start.report();
    } else if let Some(settings) = WITHOUT_CPYTHON.get() {
        report_late(settings);
    }
}

/// Returns memory that no block uses to the system, and returns the number of bytes.
///
/// Python code calls the function through `ctypes.CDLL(None).obmalloc_trim()`. It concerns the heap of
/// the calling thread's interpreter, and memory that other heaps leave to any thread. It takes the
/// GIL if the caller does not hold it. Returns 0 if the heap is not installed.
#[unsafe(no_mangle)]
pub extern "C" fn obmalloc_trim() -> usize {
    let Some(Start { python, outcome: Ok(installation), .. }) = START.get() else { return 0 };
    // SAFETY: `with_gil` calls the closure while this thread holds the GIL.
    python.with_gil(|| unsafe { installation.trim() }).unwrap_or(0)
}

/// Does what [`obmalloc_trim`] does, for a caller that holds the GIL.
///
/// # Safety
///
/// - The calling thread must hold the GIL of an interpreter.
unsafe fn trim_current() -> usize {
    let Some(Start { outcome: Ok(installation), .. }) = START.get() else { return 0 };
    // SAFETY: the contract is the same.
    unsafe { installation.trim() }
}

/// Reports a CPython that was loaded too late for the heap, if there is one.
#[cold]
fn report_late(settings: &Settings) {
    let Some((python, path)) = late::find() else { return };
    let refusal = match settings.switch {
        Switch::Off => Refusal::SwitchedOff,
        _ => Refusal::LoadedLate(path.file_name().unwrap_or(path.as_os_str()).to_owned()),
    };
    if settings.stats != Some(StatsPlace::Stderr) {
        say_refused(&refusal, settings);
    }
    let options = Options::from_process();
    Start { python, settings: settings.clone(), options, outcome: Err(refusal) }.report();
}

fn say_refused(refusal: &Refusal, settings: &Settings) {
    if !settings.is_silent() {
        say(format_args!("not installed: {refusal}"));
    }
}

impl Start {
    #[cold]
    fn new(python: CPython) -> Self {
        let (settings, options) = (Settings::from_env(), Options::from_process());
        let outcome = decide(&python, &settings, &options)
            .inspect_err(|refusal| say_refused(refusal, &settings))
            .map(|guard| Installation::new(&python, guard, &settings));
        if outcome.is_ok() {
            let host = trimming::Host { trim: trim_current, say: |line| say(line) };
            trimming::watch(&python, &settings, host);
        }
        Self { python, settings, options, outcome }
    }

    /// Writes the requested statistics, or says that another allocator has replaced the heap.
    fn report(&self) {
        let Self { python, settings, options, outcome } = self;
        if let Some(place) = &settings.stats {
            Report::new(python, outcome).write(place);
            if *place == StatsPlace::Stderr {
                // The report on stderr already says what follows.
                return;
            }
        }
        let Ok(installation) = outcome else { return };
        if !is_in_force(python) {
            if settings.any && !settings.is_silent() {
                say(format_args!("not in force at exit: {}", report::REPLACED));
            }
        } else if options.malloc_stats
            && let Some(stats) = installation.heap_stats(python)
        {
            let _ = write!(io::stderr(), "{stats}");
        }
    }
}

/// Prints one line on stderr, and ignores errors such as a closed stderr.
fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "obmalloc: {line}");
}
