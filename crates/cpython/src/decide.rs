//! Whether the heap can be right in this CPython, and if not, why not.

use std::{ffi::OsString, path::PathBuf};

use allocator_api::Domain;

use crate::{
    abi::CPython,
    in_force::Server,
    install::SERVED,
    options::Undoing,
    settings::{Settings, Switch},
    version::Version,
};

/// What to do in this process.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Leave CPython as it is: the user said so.
    Off,
    /// Leave CPython as it is, and say why.
    Refuse(Refusal),
    /// Install the heap, guarded so.
    Install(Guard),
}

/// What keeps two threads from being inside the heap at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The GIL, which is one for the process up to 3.11.
    Gil,
    /// The GIL of each interpreter, which has a heap of its own: from 3.12 on.
    Interpreters,
}

/// Why the heap is not installed: the rest of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("OBMALLOC={} is none of on, quiet and off", .0.display())]
    UnknownSwitch(OsString),
    #[error("the version of this CPython cannot be read from {0:?}")]
    UnreadableVersion(String),
    #[error(
        "this CPython {0} is a free-threaded build, whose garbage collector finds objects in heaps \
         of its own"
    )]
    FreeThreaded(Version),
    #[error("this is CPython {0}, and the heap is known to be right in 3.8 to 3.15")]
    UnknownVersion(Version),
    #[error(
        "the {0} domain is served by CPython's debug allocator, which is the default of a debug \
         build and finds errors that this heap does not look for"
    )]
    DebugAllocator(Domain),
    #[error("the interpreter is running already; the library must be preloaded")]
    AlreadyRunning,
    #[error("{0} makes CPython use allocators of its own")]
    Undone(Undoing),
    #[error("the {domain} domain is served by {} already", .by.display())]
    Taken { domain: Domain, by: PathBuf },
}

/// Decides for this process.
pub(crate) fn decide(python: &CPython, settings: &Settings) -> Decision {
    if settings.switch == Switch::Off {
        return Decision::Off;
    }
    match judge(python, settings) {
        Ok(guard) => Decision::Install(guard),
        Err(refusal) => Decision::Refuse(refusal),
    }
}

fn judge(python: &CPython, settings: &Settings) -> Result<Guard, Refusal> {
    if let Switch::Unknown(value) = &settings.switch {
        return Err(Refusal::UnknownSwitch(value.clone()));
    }
    let guard = guard_for(python.version_text(), python.shares_refcounts)?;
    if python.is_initialized() {
        return Err(Refusal::AlreadyRunning);
    }
    if let Some(undoing) = Undoing::from_process() {
        return Err(Refusal::Undone(undoing));
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

/// The guard that the CPython with this version text needs. A free-threaded build also shows in
/// the functions for shared reference counts that it exports.
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
    fn one_gil_guards_one_heap_up_to_3_11_and_each_interpreter_has_a_heap_from_3_12_on() {
        for minor in 8..=11 {
            assert_eq!(guard_for(&format!("3.{minor}.0 (main)"), false), Ok(Guard::Gil));
        }
        for minor in 12..=15 {
            assert_eq!(guard_for(&format!("3.{minor}.0 (main)"), false), Ok(Guard::Interpreters));
        }
    }

    #[test]
    fn other_versions_and_free_threaded_builds_are_refused_in_one_line() {
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
    fn shared_reference_counts_are_enough_to_refuse_a_build() {
        let text = "3.15.2 (main)";
        assert_eq!(guard_for(text, false), Ok(Guard::Interpreters));
        assert!(matches!(guard_for(text, true), Err(Refusal::FreeThreaded(_))));
    }
}
