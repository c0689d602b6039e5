#![doc = include_str!("../README.md")]

mod abi;
mod at_signal;
mod decide;
mod domains;
mod install;
mod interpreters;
mod late;
mod limit;
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
        let start = START.get_or_init(|| Start::new(python));
        let sources = at_signal::Sources {
            is_installed: start.outcome.is_ok(),
            at_exit: report_exit,
            requests: || installation()?.requests(),
            figures: || installation()?.try_figures(),
        };
        at_signal::watch(&start.settings, sources);
        return;
    }
    let settings = Settings::from_env();
    if settings.any {
        WITHOUT_CPYTHON.get_or_init(|| settings);
    }
}

fn installation() -> Option<&'static Installation> {
    START.get()?.outcome.as_ref().ok()
}

fn report_exit() {
    if let Some(start) = START.get() {
        start.report();
    }
}

extern "C" fn destruct() {
    if let Some(start) = START.get() {
        start.report();
    } else if let Some(settings) = WITHOUT_CPYTHON.get() {
        report_late(settings);
    }
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
        if !settings.is_silent() {
            settings.errors.iter().for_each(say);
        }
        let outcome = decide(&python, &settings, &options)
            .inspect_err(|refusal| say_refused(refusal, &settings))
            .map(|guard| Installation::new(&python, guard, &settings));
        Self { python, settings, options, outcome }
    }

    /// Writes the requested statistics, or says that another allocator has replaced the heap.
    fn report(&self) {
        let Self { python, settings, options, outcome } = self;
        if let Some(place) = settings.stats.as_ref().filter(|_| settings.moments.exit) {
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
