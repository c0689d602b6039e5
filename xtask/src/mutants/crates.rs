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
    Crate::new("sync", "obmalloc-sync", false, &["obmalloc-object-cache", "obmalloc-thread-heap"]),
    Crate::new(
        "raw-mem",
        "obmalloc-raw-mem",
        false,
        &["obmalloc", "obmalloc-thread-heap", "obmalloc-global-alloc"],
    ),
    Crate::new("obmalloc", "obmalloc", true, &["obmalloc-thread-heap", "obmalloc-global-alloc"]),
    Crate::new("thread-heap", "obmalloc-thread-heap", true, &["obmalloc-global-alloc"]),
    Crate::new("object-cache", "obmalloc-object-cache", true, &[]),
    Crate::new("allocator-api", "obmalloc-allocator-api", true, &["obmalloc-cpython"]),
    Crate::new("global-alloc", "obmalloc-global-alloc", false, &[]),
    Crate::new("malloc", "obmalloc-malloc", false, &[]),
    Crate::new("cpython", "obmalloc-cpython", false, &[]),
];

impl Crate {
    const fn new(
        folder: &'static str,
        package: &'static str,
        loom: bool,
        above: &'static [&'static str],
    ) -> Self {
        Self { folder, package, loom, above }
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
