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

// With LD_PRELOAD, every child process of the program loads this library too. If this library used
// a shared unwinder, each child would also load the unwinder's library, which would account for two
// thirds of the total cost to the child. We therefore link the unwinder of Rust's standard library
// statically.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[link(name = "gcc_eh", kind = "static", modifiers = "-bundle")]
unsafe extern "C" {}

/// What this library's constructor found when the process started, and whether it installed the
/// heap. The report that we write at exit uses this value.
struct Start {
    python: CPython,
    settings: Settings,
    options: Options,
    outcome: Result<Installation, Refusal>,
}

static START: OnceLock<Start> = OnceLock::new();

/// The settings of this process if it contained no CPython when it started. We store them only if
/// one of our environment variables is set. Only then does the destructor look for a CPython that
/// was loaded later, and report it.
static WITHOUT_CPYTHON: OnceLock<Settings> = OnceLock::new();

/// A pointer to `construct` in the section `.init_array`. Before `main`, the dynamic loader calls
/// every function that has a pointer in that section.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

/// A pointer to `destruct` in the section `.fini_array`. At exit, the dynamic loader calls every
/// function that has a pointer in that section, after the functions that were registered with
/// `atexit`.
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

/// Looks for a CPython that was loaded after the program had started. If there is one, reports that
/// the heap is not installed in that CPython.
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

/// Prints a line that says why the heap is not installed. Prints nothing if the settings suppress
/// such messages.
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
        Self { python, settings, options, outcome }
    }

    /// Writes the statistics if the user requested them. If another allocator has replaced the heap
    /// in CPython since the installation, and one of our environment variables is set, also prints
    /// that the heap is no longer in force.
    fn report(&self) {
        let Self { python, settings, options, outcome } = self;
        if let Some(place) = &settings.stats {
            Report::new(python, outcome).write(place);
            if *place == StatsPlace::Stderr {
                // The report on stderr already says everything that the code below would print.
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

/// Prints one line on stderr. A failed write is ignored, because a closed stderr must not stop the
/// program.
fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "obmalloc: {line}");
}
