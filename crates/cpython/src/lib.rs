//! A shared library that puts the obmalloc heap into an unmodified CPython.
//!
//! ```text
//!   LD_PRELOAD=libobmalloc_cpython.so python3 …
//!
//!   the loader runs our constructor, before main
//!        │ abi      is PyMem_SetAllocator in this process? no: nothing happens, ever
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
//!                                                               raw ─► CPython's own
//! ```
//!
//! Rules:
//! 1. A process without CPython is left alone: one failed symbol look-up, and nothing else.
//! 2. The raw domain stays CPython's. CPython 3.8 frees a block there, in a forked child, that it
//!    took behind the vtable's back.
//! 3. The heap and the allocators over it live for ever: destructors of C libraries free blocks
//!    after the interpreter is gone.
//! 4. Nothing here allocates through the allocator it installs: this library's own memory comes
//!    from the C library.

mod abi;
mod decide;
mod in_force;
mod install;
mod interpreters;
mod options;
mod raw_domain;
mod rebirth;
mod report;
mod settings;
mod version;

use std::{
    io::{self, Write},
    sync::OnceLock,
};

use crate::{
    abi::CPython,
    decide::{Decision, decide},
    install::Installation,
    report::Report,
    settings::Settings,
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
    outcome: Result<Installation, String>,
}

static START: OnceLock<Start> = OnceLock::new();

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
    }
}

#[cold]
fn start(python: CPython) -> Start {
    let settings = Settings::from_env();
    let outcome = match decide(&python, &settings) {
        Decision::Off => Err("OBMALLOC=off".to_owned()),
        Decision::Refuse(reason) => {
            if !settings.quiet {
                // Where nobody can read it, the program goes on all the same.
                let _ = writeln!(io::stderr(), "obmalloc: not installed: {reason}");
            }
            Err(reason.to_string())
        }
        Decision::Install(guard) => Ok(Installation::new(&python, guard, &settings)),
    };
    Start { python, settings, outcome }
}

extern "C" fn destruct() {
    let Some(start) = START.get() else { return };
    if let Some(place) = &start.settings.stats {
        Report::new(start).write(place);
    }
}
