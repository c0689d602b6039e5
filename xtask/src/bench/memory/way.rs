//! The allocators, and the ways in which each of them is used.

/// The language of the workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    Python,
    Rust,
}

impl Host {
    pub(super) const ALL: [Self; 2] = [Self::Python, Self::Rust];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::Rust => "Rust",
        }
    }
}

/// An allocator and its settings.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) host: Host,
    pub(super) name: &'static str,
    /// The name of the worker in Rust, or of the library under Python.
    pub(super) worker: &'static str,
    pub(super) variables: &'static [(&'static str, &'static str)],
    /// The argument that makes the program trim. Under Python, it is the name of a C function.
    pub(super) trim: Option<&'static str>,
}

impl Way {
    const fn new(host: Host, name: &'static str, worker: &'static str) -> Self {
        Self { host, name, worker, variables: &[], trim: None }
    }

    const fn with(self, variables: &'static [(&'static str, &'static str)]) -> Self {
        Self { variables, ..self }
    }

    const fn trimmed_by(self, trim: &'static str) -> Self {
        Self { trim: Some(trim), ..self }
    }
}

/// The name of our allocator with its default settings.
pub(super) const OURS: &str = "obmalloc";

/// The name of CPython's own allocator.
pub(super) const OWN: &str = "CPython's own";

const MALLOC: (&str, &str) = ("PYTHONMALLOC", "malloc");

const EAGER_MIMALLOC: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "0");

const EAGER_JEMALLOC: &str = "dirty_decay_ms:0,muzzy_decay_ms:0";

pub(super) static WAYS: [Way; 16] = [
    Way::new(Host::Python, OURS, "cpython"),
    Way::new(Host::Python, "obmalloc, trimmed", "cpython").trimmed_by("obmalloc_trim"),
    Way::new(Host::Python, OWN, "none"),
    Way::new(Host::Python, "mimalloc v3", "mimalloc-v3").with(&[MALLOC]),
    Way::new(Host::Python, "mimalloc v3, eager", "mimalloc-v3").with(&[MALLOC, EAGER_MIMALLOC]),
    Way::new(Host::Python, "jemalloc", "jemalloc").with(&[MALLOC]),
    Way::new(Host::Python, "jemalloc, eager", "jemalloc")
        .with(&[MALLOC, ("MALLOC_CONF", EAGER_JEMALLOC)]),
    Way::new(Host::Python, "glibc, malloc_trim", "none").with(&[MALLOC]).trimmed_by("malloc_trim"),
    Way::new(Host::Rust, OURS, "obmalloc"),
    Way::new(Host::Rust, "obmalloc, trimmed", "obmalloc").trimmed_by("trim"),
    Way::new(Host::Rust, "mimalloc v3", "mimalloc-v3"),
    Way::new(Host::Rust, "mimalloc v3, eager", "mimalloc-v3").with(&[EAGER_MIMALLOC]),
    Way::new(Host::Rust, "jemalloc", "jemalloc"),
    Way::new(Host::Rust, "jemalloc, eager", "jemalloc")
        .with(&[("_RJEM_MALLOC_CONF", EAGER_JEMALLOC)]),
    Way::new(Host::Rust, "glibc", "system"),
    Way::new(Host::Rust, "glibc, malloc_trim", "system").trimmed_by("trim"),
];
