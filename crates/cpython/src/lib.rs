//! A shared library that puts the obmalloc heap into an unmodified CPython.
//!
//! ```text
//!   LD_PRELOAD=libobmalloc_cpython.so python3 …
//!
//!   the loader runs our constructor, before main
//!        │ abi      is PyMem_SetAllocator in this process? no: nothing happens until exit
//!        ▼
//!      decide ◄──── settings   OBMALLOC, OBMALLOC_STATS
//!        │    ◄──── options    what CPython's environment and command line will make it do
//!        │    ◄──── version    which CPython this is
//!        ├── refuse, with one line on stderr
//!        ▼
//!     install       a heap, or one for each interpreter (3.12 and later), and its vtable for the
//!        │          domains mem and obj
//!        │          rebirth  (3.12 and later) installs it again in a second Py_Initialize
//!        ▼
//!    the interpreter runs                                obj, mem ─► hooks ─► heap
//!        ▼                                                                     │ large, foreign
//!      report       at exit, if asked: what was in force, what was served      ▼
//!      late         at exit, a CPython that came too late            raw ─► CPython's own
//! ```
//!
//! Rules:
//! 1. A process without CPython is left alone. It pays only for one failed symbol look-up and for
//!    reading its environment. At exit, if one of our variables is set, we look for a CPython in
//!    the libraries that were loaded in the meantime.
//! 2. The raw domain stays CPython's. CPython 3.8 frees a block there, in a forked child, that it
//!    took behind the vtable's back.
//! 3. The heap and the allocators over it live forever: destructors of C libraries free blocks
//!    after the interpreter is gone.
//! 4. Nothing here allocates through the allocator it installs: this library's own memory comes
//!    from the C library.

mod abi;
mod decide;
mod in_force;
mod install;
mod interpreters;
mod late;
mod options;
mod raw_domain;
mod rebirth;
mod report;
mod settings;
mod version;

use std::{
    fmt::Display,
    io::{self, Write},
    sync::OnceLock,
};

use crate::{
    abi::CPython,
    decide::{Decision, decide},
    in_force::is_in_force,
    install::Installation,
    report::Report,
    settings::{Settings, StatsPlace, Switch},
};

// The unwinder of Rust's standard library, from the archive: the shared one would be loaded into
// every process that inherits LD_PRELOAD, for two thirds of what this library costs them.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[link(name = "gcc_eh", kind = "static", modifiers = "-bundle")]
unsafe extern "C" {}

/// What the constructor found and did, for the destructor to report.
struct Start {
    python: CPython,
    settings: Settings,
    /// The heap, or the reason why it was not installed.
    outcome: Result<Installation, String>,
    /// `PYTHONMALLOCSTATS` asks for the statistics of the allocator in force.
    malloc_stats: bool,
}

/// The reason that is given where the user turned the library off.
const OFF: &str = "OBMALLOC=off";

static START: OnceLock<Start> = OnceLock::new();

/// The settings of a process that had no CPython when it started, if a variable of ours is set.
static WITHOUT_CPYTHON: OnceLock<Settings> = OnceLock::new();

/// The loader calls what stands in this section before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

/// The loader calls what stands in this section at exit, after the functions given to `atexit`.
#[used]
#[unsafe(link_section = ".fini_array")]
static DESTRUCTOR: extern "C" fn() = destruct;

extern "C" fn construct() {
    if let Some(python) = CPython::find() {
        START.get_or_init(|| start(python));
        return;
    }
    let settings = Settings::from_env();
    if settings.any {
        WITHOUT_CPYTHON.get_or_init(|| settings);
    }
}

#[cold]
fn start(python: CPython) -> Start {
    let settings = Settings::from_env();
    let outcome = match decide(&python, &settings) {
        Decision::Off => Err(OFF.to_owned()),
        Decision::Refuse(reason) => {
            if !settings.is_silent() {
                say(format_args!("not installed: {reason}"));
            }
            Err(reason.to_string())
        }
        Decision::Install(guard) => Ok(Installation::new(&python, guard, &settings)),
    };
    Start { python, settings, outcome, malloc_stats: options::asks_for_malloc_stats() }
}

extern "C" fn destruct() {
    if let Some(start) = START.get() {
        start.report();
    } else if let Some(settings) = WITHOUT_CPYTHON.get() {
        report_late(settings);
    }
}

/// Reports a CPython that was loaded after the program had started, if there is one.
#[cold]
fn report_late(settings: &Settings) {
    let Some((python, path)) = late::find() else { return };
    let reason = match settings.switch {
        Switch::Off => OFF.to_owned(),
        Switch::On | Switch::Unknown(_) => late::reason(&path),
    };
    if !settings.is_silent() && settings.stats != Some(StatsPlace::Stderr) {
        say(format_args!("not installed: {reason}"));
    }
    let settings = settings.clone();
    Start { python, settings, outcome: Err(reason), malloc_stats: false }.report();
}

impl Start {
    /// Prints and writes what was asked for at exit. If one of our variables is set and the heap
    /// was installed but is no longer in force, also says so.
    fn report(&self) {
        let settings = &self.settings;
        if let Some(place) = &settings.stats {
            Report::new(self).write(place);
        }
        let Ok(installation) = &self.outcome else { return };
        if settings.stats == Some(StatsPlace::Stderr) {
            // The report says all that follows.
        } else if !is_in_force(&self.python) {
            if settings.any && !settings.is_silent() {
                say(format_args!("not in force at exit: {}", report::REPLACED));
            }
        } else if self.malloc_stats
            && let Some(stats) = installation.heap_stats(&self.python)
        {
            let _ = write!(io::stderr(), "{stats}");
        }
    }
}

/// Prints one line on stderr. Where nobody can read it, the program goes on all the same.
fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "obmalloc: {line}");
}
