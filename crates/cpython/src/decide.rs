//! The decision whether to install the heap in this CPython.

#![forbid(unsafe_code)]

use std::{ffi::OsString, path::PathBuf};

use allocator_api::Domain;

use crate::{
    abi::CPython,
    domains::{SERVED, Server},
    options::{Choice, Options},
    self_check::Difference,
    settings::{Settings, Switch},
    version::{NEWEST, OLDEST, Version},
};

/// The lock of CPython that keeps two threads from using the same heap at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The only GIL of CPython up to 3.11, which protects the only heap.
    Gil,
    /// The GIL of each interpreter, from CPython 3.12 on. It protects that interpreter's heap.
    Interpreters,
}

/// How to install the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) guard: Guard,
    /// The version of a CPython that is newer than [`NEWEST`] and must pass the self-check.
    pub(crate) newer: Option<Version>,
}

/// The reason why the heap is not installed. Its text is printed after "not installed: ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("OBMALLOC=off")]
    SwitchedOff,
    /// A setting has an unknown value. The text lists the known values.
    #[error("{0}")]
    UnknownName(String),
    #[error("cannot read the version of this CPython from {0:?}")]
    UnreadableVersion(String),
    #[error(
        "CPython {0} is a free-threaded build, whose garbage collector finds objects only in \
         CPython's own heaps"
    )]
    FreeThreaded(Version),
    #[error("CPython {0} is not supported, only {OLDEST} and later are")]
    OldVersion(Version),
    #[error("CPython {0} is newer than {NEWEST}")]
    Strict(Version),
    #[error("CPython {version} is newer than {NEWEST} and fails the self-check: {difference}")]
    Differs { version: Version, difference: Difference },
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
    /// Returns true if the user requested that the heap is not installed, so no message is needed.
    pub(crate) fn is_requested(&self) -> bool {
        matches!(self, Self::SwitchedOff | Self::OwnAllocator(_))
    }
}

/// Decides whether and how to install the heap in `python`.
///
/// If the CPython is newer than [`NEWEST`], it must also pass `check_layout`.
pub(crate) fn decide(
    python: &CPython,
    settings: &Settings,
    options: &Options,
    check_layout: impl Fn() -> Result<(), Difference>,
) -> Result<Plan, Refusal> {
    match &settings.switch {
        Ok(Switch::On | Switch::Strict | Switch::Quiet | Switch::Debug) => (),
        Ok(Switch::Off) => return Err(Refusal::SwitchedOff),
        Err(unknown) => return Err(Refusal::UnknownName(unknown.clone())),
    }
    let plan = plan_for(python.version_text(), python.shares_refcounts)?;
    if python.is_initialized() {
        return Err(Refusal::AlreadyRunning);
    }
    if let Some(choice) = &options.choice
        && !choice.is_heap().map_err(Refusal::UnknownName)?
    {
        return Err(Refusal::OwnAllocator(choice.clone()));
    }
    if let Some(version) = plan.newer {
        if settings.switch == Ok(Switch::Strict) {
            return Err(Refusal::Strict(version));
        }
        check_layout().map_err(|difference| Refusal::Differs { version, difference })?;
    }
    for domain in SERVED {
        match Server::of(&python.allocator(domain), python) {
            Server::Library(by) => return Err(Refusal::Taken { domain, by }),
            Server::Hook => return Err(Refusal::DebugAllocator(domain)),
            Server::CPython | Server::Obmalloc => (),
        }
    }
    Ok(plan)
}

/// Returns why the heap refuses a CPython that has no vtables, if its version is the reason.
pub(crate) fn refuse_old(version_text: &str) -> Option<Refusal> {
    plan_for(version_text, false).err().filter(|why| matches!(why, Refusal::OldVersion(_)))
}

fn plan_for(version_text: &str, shares_refcounts: bool) -> Result<Plan, Refusal> {
    let version = Version::parse(version_text)
        .ok_or_else(|| Refusal::UnreadableVersion(version_text.to_owned()))?;
    if version.free_threaded || shares_refcounts {
        return Err(Refusal::FreeThreaded(version));
    }
    if version.pair() < OLDEST.pair() {
        return Err(Refusal::OldVersion(version));
    }
    let guard = if version.pair() < (3, 12) { Guard::Gil } else { Guard::Interpreters };
    Ok(Plan { guard, newer: Some(version).filter(|version| version.is_newer()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard_for(text: &str) -> Option<Guard> {
        plan_for(text, false).ok().filter(|plan| plan.newer.is_none()).map(|plan| plan.guard)
    }

    #[test]
    fn there_is_one_heap_up_to_3_11_and_one_for_each_interpreter_from_3_12_on() {
        for minor in 8..=11 {
            assert_eq!(guard_for(&format!("3.{minor}.0 (main)")), Some(Guard::Gil));
        }
        for minor in 12..=15 {
            assert_eq!(guard_for(&format!("3.{minor}.0 (main)")), Some(Guard::Interpreters));
        }
    }

    #[test]
    fn a_newer_version_must_pass_the_self_check() {
        for text in ["3.16.0a1 (main)", "3.100.1 (main)", "4.0.0 (main)"] {
            let plan = plan_for(text, false).unwrap();
            assert_eq!((plan.guard, plan.newer), (Guard::Interpreters, Version::parse(text)));
        }
    }

    #[test]
    fn older_versions_and_free_threaded_builds_are_refused_with_one_line() {
        let texts = [
            "2.7.18 (default)",
            "3.7.16 (default)",
            "3.13.0 experimental free-threading build (main)",
            "3.16.0 free-threading build (main)",
            "?",
        ];
        for text in texts {
            let line = plan_for(text, false).unwrap_err().to_string();
            assert!(!line.contains('\n') && line.len() > 20, "{line}");
        }
        for text in &texts[2..4] {
            assert!(matches!(plan_for(text, false), Err(Refusal::FreeThreaded(_))));
        }
    }

    #[test]
    fn a_build_with_shared_reference_counts_is_refused() {
        let text = "3.15.2 (main)";
        assert!(plan_for(text, false).is_ok());
        assert!(matches!(plan_for(text, true), Err(Refusal::FreeThreaded(_))));
    }

    #[test]
    fn a_cpython_without_vtables_is_refused_if_it_is_old() {
        assert!(matches!(refuse_old("2.7.18 (default)"), Some(Refusal::OldVersion(_))));
        assert_eq!(refuse_old("3.11.2 (main)"), None);
    }
}
