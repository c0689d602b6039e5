//! The programs that are compared.

/// A script of bash, whose first argument is `quick` or `full`.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) is_quick: bool,
    /// The commands that the script needs.
    pub(super) needs: &'static [&'static str],
    /// Whether the library for CPython is loaded as well.
    pub(super) with_cpython: bool,
    pub(super) script: &'static str,
}

impl Program {
    const fn new(name: &'static str, needs: &'static [&'static str], script: &'static str) -> Self {
        Self { name, is_quick: false, needs, with_cpython: false, script }
    }

    const fn quick(self) -> Self {
        Self { is_quick: true, ..self }
    }

    const fn with_cpython(self) -> Self {
        Self { with_cpython: true, ..self }
    }
}

pub(super) const PROGRAMS: [Program; 12] = [
    Program::new("bash", &[], include_str!("programs/bash.sh")).quick(),
    Program::new("git", &["git"], include_str!("programs/git.sh")).quick(),
    Program::new("gcc", &["gcc"], include_str!("programs/gcc.sh")).quick(),
    Program::new("perl", &["perl"], include_str!("programs/perl.sh")).quick(),
    Program::new("sqlite3", &["sqlite3"], include_str!("programs/sqlite3.sh")).quick(),
    Program::new("python3", &["python3"], include_str!("programs/python3.sh"))
        .quick()
        .with_cpython(),
    Program::new("g++", &["g++"], include_str!("programs/g++.sh")),
    Program::new("node", &["node"], include_str!("programs/node.sh")),
    Program::new("ruby", &["ruby"], include_str!("programs/ruby.sh")),
    Program::new("java", &["java"], include_str!("programs/java.sh")),
    Program::new(
        "redis",
        &["redis-server", "redis-cli", "redis-benchmark"],
        include_str!("programs/redis.sh"),
    ),
    Program::new("cargo", &["cargo"], include_str!("programs/cargo.sh")),
];
