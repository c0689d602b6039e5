//! The input of the checks: files, commands and the subjects of commits.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::Result;

use crate::workspace;

/// The crates that users get. The other crates test, measure or demonstrate.
pub(super) const SHIPPING: &[&str] = &[
    "allocator-api",
    "cli",
    "cpython",
    "global-alloc",
    "malloc",
    "object-cache",
    "obmalloc",
    "raw-mem",
    "status",
    "sync",
    "thread-heap",
];

/// The date from which commits are checked.
const SINCE: &str = "2026-11-29T00:00:00Z";

#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    pub(super) files: BTreeMap<String, String>,
    /// The subcommands of `cargo xtask`, each with its options.
    pub(super) commands: BTreeMap<String, BTreeSet<String>>,
    pub(super) subjects: Vec<String>,
}

impl Tree {
    pub(super) fn of_repository(commands: &clap::Command) -> Result<Self> {
        let mut files = BTreeMap::new();
        for path in workspace::files()? {
            let bytes = fs::read(workspace::root().join(&path));
            if let Some(text) = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
                files.insert(path, text);
            }
        }
        let log = workspace::git(&["log", "--no-merges", "--since", SINCE, "--format=%s"])?;
        let subjects = log.lines().map(str::to_owned).collect();
        let commands = commands.get_subcommands().map(|command| {
            let options = command.get_arguments().filter_map(clap::Arg::get_long);
            (command.get_name().to_owned(), options.map(str::to_owned).collect())
        });
        Ok(Self { files, commands: commands.collect(), subjects })
    }

    #[cfg(test)]
    pub(super) fn with(files: &[(&str, &str)]) -> Self {
        let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        Self { files: files.iter().map(owned).collect(), ..Self::default() }
    }

    /// Returns the Rust files of the shipping crate `name`, without test files.
    pub(super) fn sources(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        let folder = format!("crates/{name}/src/");
        self.files.iter().filter_map(move |(path, text)| {
            let file = path.strip_prefix(&folder)?;
            (file.ends_with(".rs") && !is_test_file(file)).then_some((file, &**text))
        })
    }

    /// Returns the rows of the table in ARCHITECTURE.md whose header begins with `first`.
    pub(super) fn table(&self, first: &str) -> Vec<Vec<String>> {
        let text = self.files.get("ARCHITECTURE.md").map_or("", |text| text);
        let header = format!("| {first} |");
        let lines = text.lines().skip_while(|line| !line.starts_with(&header)).skip(2);
        let rows = lines.take_while(|line| line.starts_with('|'));
        let cell = |cell: &str| cell.replace('`', "").trim().to_owned();
        rows.map(|row| row.trim_matches('|').split('|').map(cell).collect()).collect()
    }
}

/// Returns true if only tests use `file`, because it is a module for tests or lies in one.
fn is_test_file(file: &str) -> bool {
    let mut parts = file.trim_end_matches(".rs").split('/');
    parts.any(|part| ["tests", "models", "testing"].contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_of_a_test_module_are_test_files() {
        assert!(["tests.rs", "a/models.rs", "a/models/b.rs"].into_iter().all(is_test_file));
        assert!(!["a.rs", "contests.rs", "a/b.rs"].into_iter().any(is_test_file));
    }
}
