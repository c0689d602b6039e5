//! The allocators that the bench compares.

use anyhow::{Result, ensure};
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Ours,
    /// An allocator of another project.
    Peer,
    /// A minimal allocator ("the least"), which lacks features that a real allocator needs.
    Least,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entrant {
    pub(super) name: &'static str,
    pub(super) role: Role,
    pub(super) worker: &'static str,
    pub(super) feature: Option<&'static str>,
    pub(super) package: Option<&'static str>,
    /// True if the worker uses the allocator for all its memory, which can then be measured.
    pub(super) global: bool,
}

impl Entrant {
    const fn new(name: &'static str, role: Role, worker: &'static str) -> Self {
        Self { name, role, worker, feature: None, package: None, global: true }
    }

    pub(super) const fn of_package(self, package: &'static str) -> Self {
        Self { package: Some(package), ..self }
    }

    const fn of_a_loop(self) -> Self {
        Self { global: false, ..self }
    }
}

/// The name of our allocator as a global allocator.
pub(super) const OBMALLOC: &str = "ObMalloc";

/// The name of our allocator as a preloaded library.
pub(super) const LIBOBMALLOC: &str = "libobmalloc";

pub(super) const LIBMIMALLOC_V2: &str = "libmimalloc v2";

pub(super) const MIMALLOC_V3: &str = "mimalloc v3";

pub(super) const JEMALLOC: &str = "jemalloc";

const fn ours(name: &'static str, worker: &'static str) -> Entrant {
    Entrant::new(name, Role::Ours, worker)
}

const fn peer(name: &'static str, worker: &'static str) -> Entrant {
    Entrant::new(name, Role::Peer, worker)
}

const fn compiled(name: &'static str, feature: &'static str, package: &'static str) -> Entrant {
    Entrant { feature: Some(feature), ..peer(name, feature) }.of_package(package)
}

pub(super) const ALL: &[Entrant] = &[
    ours("Heap", "heap").of_package("obmalloc").of_a_loop(),
    ours("Heap, CPython's rules", "heap-cpython").of_package("obmalloc").of_a_loop(),
    ours(OBMALLOC, "obmalloc").of_package("obmalloc-global-alloc"),
    Entrant::new("the least", Role::Least, "floor").of_a_loop(),
    Entrant { worker: "mimalloc-v3", ..compiled(MIMALLOC_V3, "mimalloc", "mimalloc") },
    compiled("mimalloc v2", "mimalloc-v2", "mimalloc"),
    compiled("snmalloc", "snmalloc", "snmalloc-rs"),
    compiled("rpmalloc", "rpmalloc", "rpmalloc"),
    compiled(JEMALLOC, "jemalloc", "tikv-jemallocator"),
    peer("system", "system"),
    peer("CPython", "cpython").of_a_loop(),
];

/// The allocators that programs in C use.
pub(super) const PRELOADED: &[Entrant] = &[
    ours(LIBOBMALLOC, "libobmalloc").of_package("obmalloc-malloc"),
    peer(LIBMIMALLOC_V2, "libmimalloc-v2").of_package("libmimalloc-sys"),
    peer("libmimalloc v3", "libmimalloc-v3").of_package("libmimalloc-sys"),
    peer("libjemalloc", "libjemalloc").of_package("tikv-jemalloc-sys"),
    peer("libc", "libc"),
];

pub(super) const OUR_PYTHON: Entrant =
    ours("obmalloc in CPython", "python").of_package("obmalloc-cpython");

pub(super) const THEIR_PYTHON: Entrant = peer("CPython's own", "python");

/// Returns our allocators, and those that `against` names. If `against` is empty, returns all
/// allocators. The second list contains the preloaded ones.
///
/// # Errors
///
/// Fails if `against` contains an unknown name.
pub(super) fn chosen(against: &[String]) -> Result<(Vec<Entrant>, Vec<Entrant>)> {
    for name in against {
        let names: Vec<_> = ALL.iter().chain(PRELOADED).map(|entrant| entrant.name).collect();
        let is_known = names.contains(&name.as_str());
        ensure!(is_known, "no allocator is called {name:?}; there are: {}", names.join("; "));
    }
    let takes_part = |entrant: &&Entrant| {
        let is_named = against.iter().any(|name| name == entrant.name);
        against.is_empty() || is_named || entrant.role == Role::Ours
    };
    let of = |all: &[Entrant]| all.iter().filter(takes_part).copied().collect();
    Ok((of(ALL), of(PRELOADED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_allocators_take_part_beside_those_that_are_named() {
        let (named, preloaded) = chosen(&["jemalloc".to_owned()]).unwrap();
        let names: Vec<_> = named.iter().map(|entrant| entrant.name).collect();
        assert_eq!(names, ["Heap", "Heap, CPython's rules", "ObMalloc", "jemalloc"]);
        assert_eq!(preloaded.iter().map(|one| one.name).collect::<Vec<_>>(), [LIBOBMALLOC]);
        assert!(chosen(&["jamalloc".to_owned()]).is_err());
    }
}
