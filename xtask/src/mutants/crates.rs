//! The shipping crates, and the tests that may notice a mutant of each crate.

use anyhow::{Context, Result};

use crate::workspace;

pub(super) struct Crate {
    pub(super) folder: &'static str,
    pub(super) package: &'static str,
    pub(super) loom: bool,
    /// The crates built on this one, whose tests run if this crate's own tests notice nothing.
    pub(super) above: &'static [&'static str],
}

pub(super) const ALL: &[Crate] = &[
    Crate::new("sync", false, &["object-cache", "thread-heap"]),
    Crate::new("raw-mem", false, &["obmalloc", "thread-heap", "global-alloc"]),
    Crate::new("obmalloc", true, &["thread-heap", "global-alloc"]),
    Crate::new("thread-heap", true, &["global-alloc"]),
    Crate::new("object-cache", true, &[]),
    Crate::new("allocator-api", true, &["obmalloc-cpython"]),
    Crate::new("global-alloc", false, &[]),
    Crate { package: "obmalloc-cpython", ..Crate::new("cpython", false, &[]) },
];

impl Crate {
    const fn new(name: &'static str, loom: bool, above: &'static [&'static str]) -> Self {
        Self { folder: name, package: name, loom, above }
    }

    /// Returns true if the crate's integration tests run for each mutant. Those of `cpython` take
    /// too long.
    pub(super) fn has_integration_tests(&self) -> bool {
        let tests = workspace::root().join("crates").join(self.folder).join("tests");
        self.folder != "cpython" && tests.is_dir()
    }
}

pub(super) fn chosen(names: &[String]) -> Result<Vec<&'static Crate>> {
    if names.is_empty() {
        // Most code of `cpython` runs only inside a Python process, so unit tests notice little.
        return Ok(ALL.iter().filter(|krate| krate.folder != "cpython").collect());
    }
    let find = |name: &String| {
        let known = ALL.iter().find(|krate| [krate.folder, krate.package].contains(&&**name));
        known.with_context(|| format!("{name} is not a shipping crate"))
    };
    names.iter().map(find).collect()
}
