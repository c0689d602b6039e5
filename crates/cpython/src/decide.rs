//! The decision whether to install the heap in this CPython.

#![forbid(unsafe_code)]

use std::{ffi::OsString, path::PathBuf};

use allocator_api::Domain;

use crate::{
    abi::CPython,
    domains::{SERVED, Server},
    options::{Choice, Options},
    settings::{Settings, Switch},
    version::Version,
};

/// The lock of CPython that keeps two threads from using the same heap at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The only GIL of CPython up to 3.11, which protects the only heap.
    Gil,
    /// The GIL of each interpreter, from CPython 3.12 on. It protects that interpreter's heap.
    Interpreters,
}

/// The reason why the heap is not installed. Its text is printed after "not installed: ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("OBMALLOC=off")]
    SwitchedOff,
    #[error("OBMALLOC={} is not one of on, quiet, debug and off", .0.display())]
    UnknownSwitch(OsString),
    #[error("cannot read the version of this CPython from {0:?}")]
    UnreadableVersion(String),
    #[error("CPython {0} is a free-threaded build, which looks for objects in its own heaps")]
    FreeThreaded(Version),
    #[error("CPython {0} is not supported, only 3.8 to 3.15 are")]
    UnknownVersion(Version),
    #[error(
        "CPython's debug allocator serves the {0} domain (the default of a debug build), and no \
         heap can be put below it"
    )]
    DebugAllocator(Domain),
    #[error("the interpreter is already running, so the library must be preloaded")]
    AlreadyRunning,
    #[error("{0} makes CPython use allocators of its own")]
    OwnAllocator(Choice),
    #[error("{} already serves the {domain} domain", .by.display())]
    Taken { domain: Domain, by: PathBuf },
    #[error(
        "{} was loaded after the program had started, which is too late (link the program to it, \
         or list it after this library in LD_PRELOAD)",
        .0.display()
    )]
    LoadedLate(OsString),
}

impl Refusal {
    /// Returns true if the user asked for what happens, so no line needs to explain it.
    pub(crate) fn is_requested(&self) -> bool {
        matches!(self, Self::SwitchedOff | Self::OwnAllocator(_))
    }
}

/// Decides about the heap, and returns the lock that protects it.
pub(crate) fn decide(
    python: &CPython,
    settings: &Settings,
    options: &Options,
) -> Result<Guard, Refusal> {
    match &settings.switch {
        Switch::On | Switch::Quiet | Switch::Debug => (),
        Switch::Off => return Err(Refusal::SwitchedOff),
        Switch::Unknown(value) => return Err(Refusal::UnknownSwitch(value.clone())),
    }
    let guard = guard_for(python.version_text(), python.shares_refcounts)?;
    if python.is_initialized() {
        return Err(Refusal::AlreadyRunning);
    }
    if let Some(other) = options.choice.as_ref().filter(|choice| !choice.is_heap()) {
        return Err(Refusal::OwnAllocator(other.clone()));
    }
    for domain in SERVED {
        match Server::of(&python.allocator(domain), python) {
            Server::Library(by) => return Err(Refusal::Taken { domain, by }),
            Server::Hook => return Err(Refusal::DebugAllocator(domain)),
            Server::CPython | Server::Obmalloc => (),
        }
    }
    Ok(guard)
}

fn guard_for(version_text: &str, shares_refcounts: bool) -> Result<Guard, Refusal> {
    let version = Version::parse(version_text)
        .ok_or_else(|| Refusal::UnreadableVersion(version_text.to_owned()))?;
    if version.free_threaded || shares_refcounts {
        return Err(Refusal::FreeThreaded(version));
    }
    match version.pair() {
        (3, 8..=11) => Ok(Guard::Gil),
        (3, 12..=15) => Ok(Guard::Interpreters),
        _ => Err(Refusal::UnknownVersion(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_heap_up_to_3_11_and_one_for_each_interpreter_from_3_12_on() {
        for minor in 8..=11 {
            assert_eq!(guard_for(&format!("3.{minor}.0 (main)"), false), Ok(Guard::Gil));
        }
        for minor in 12..=15 {
            assert_eq!(guard_for(&format!("3.{minor}.0 (main)"), false), Ok(Guard::Interpreters));
        }
    }

    #[test]
    fn other_versions_and_free_threaded_builds_are_refused_with_one_line() {
        let texts = [
            "2.7.18 (default)",
            "3.7.16 (default)",
            "3.16.0a1 (main)",
            "4.0.0 (main)",
            "3.13.0 experimental free-threading build (main)",
            "?",
        ];
        for text in texts {
            let line = guard_for(text, false).unwrap_err().to_string();
            assert!(!line.contains('\n') && line.len() > 20, "{line}");
        }
        assert!(matches!(guard_for(texts[4], false), Err(Refusal::FreeThreaded(_))));
    }

    #[test]
    fn a_build_with_shared_reference_counts_is_refused() {
        let text = "3.15.2 (main)";
        assert_eq!(guard_for(text, false), Ok(Guard::Interpreters));
        assert!(matches!(guard_for(text, true), Err(Refusal::FreeThreaded(_))));
    }
}
