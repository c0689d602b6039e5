//! Who takes part.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// What somebody is to the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// One of our allocators: it gets a table of its own.
    Ours,
    /// What people use instead.
    Peer,
    /// What any allocator of size classes must do: no peer, it cannot do what they do.
    Least,
}

/// Somebody who takes part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entrant {
    /// How tables call it.
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    /// The program `worker-…` of the package `benches`.
    pub(crate) worker: &'static str,
    /// The feature that compiles it in.
    pub(crate) feature: Option<&'static str>,
    /// The package whose version it goes by.
    pub(crate) package: Option<&'static str>,
    /// It serves the whole process, so that the process's memory is what it took.
    pub(crate) global: bool,
}

impl Entrant {
    /// The same, which serves one loop, in a process whose memory is not its own.
    const fn of_a_loop(self) -> Self {
        Self { global: false, ..self }
    }
}

const fn ours(name: &'static str, worker: &'static str, package: &'static str) -> Entrant {
    let package = Some(package);
    Entrant { name, role: Role::Ours, worker, feature: None, package, global: true }
}

const fn peer(
    name: &'static str,
    worker: &'static str,
    feature: Option<&'static str>,
    package: Option<&'static str>,
) -> Entrant {
    Entrant { name, role: Role::Peer, worker, feature, package, global: true }
}

/// All of them, in the order of the tables.
pub(crate) const ALL: &[Entrant] = &[
    ours("Heap", "heap", "obmalloc").of_a_loop(),
    ours("Heap, CPython's rules", "heap-cpython", "obmalloc").of_a_loop(),
    ours("ObMalloc", "obmalloc", "global-alloc"),
    Entrant { role: Role::Least, ..peer("the least", "floor", None, None) }.of_a_loop(),
    peer("mimalloc v3", "mimalloc-v3", Some("mimalloc"), Some("mimalloc")),
    peer("mimalloc v2", "mimalloc-v2", Some("mimalloc-v2"), Some("mimalloc")),
    peer("snmalloc", "snmalloc", Some("snmalloc"), Some("snmalloc-rs")),
    peer("rpmalloc", "rpmalloc", Some("rpmalloc"), Some("rpmalloc")),
    peer("jemalloc", "jemalloc", Some("jemalloc"), Some("tikv-jemallocator")),
    peer("system", "system", None, None),
    peer("CPython", "cpython", None, None).of_a_loop(),
];

/// Ours, and those that are named; all when none is.
pub(crate) fn chosen(against: &[String]) -> Result<Vec<Entrant>> {
    for name in against {
        let names: Vec<_> = ALL.iter().map(|entrant| entrant.name).collect();
        ensure!(names.contains(&name.as_str()), "nobody is called {name}: {}", names.join(", "));
    }
    let takes_part = |entrant: &&Entrant| {
        let named = against.iter().any(|name| name == entrant.name);
        against.is_empty() || named || entrant.role == Role::Ours
    };
    Ok(ALL.iter().filter(takes_part).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_take_part_beside_whoever_is_named() {
        let named = chosen(&["jemalloc".to_owned()]).unwrap();
        let names: Vec<_> = named.iter().map(|entrant| entrant.name).collect();
        assert_eq!(names, ["Heap", "Heap, CPython's rules", "ObMalloc", "jemalloc"]);
        assert!(chosen(&["jamalloc".to_owned()]).is_err());
    }
}
