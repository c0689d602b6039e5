//! Chooses the Python programs to run.

use std::{ffi::OsString, fs, path::PathBuf};

use anyhow::{Context, Result};
use obmalloc_cli::target::Invocation;
use testkit::pythons::Python;

use crate::workspace;

#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) name: String,
    pub(super) args: Vec<OsString>,
    /// True for a program of `examples/python`, which prints the same text in every run.
    pub(super) bundled: bool,
}

impl Program {
    pub(super) fn invocation(&self, python: &Python) -> Invocation {
        let path = python.executable.clone();
        Invocation { name: path.clone().into(), path, args: self.args.clone() }
    }
}

pub(super) fn chosen(args: &[OsString]) -> Result<Vec<Program>> {
    if args.is_empty() {
        return bundled();
    }
    let words: Vec<_> = args.iter().map(|word| word.to_string_lossy()).collect();
    Ok(vec![Program { name: shortened(&words.join(" ")), args: args.to_vec(), bundled: false }])
}

fn bundled() -> Result<Vec<Program>> {
    let folder = workspace::root().join("examples/python");
    let entries = fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    let paths: Result<Vec<PathBuf>, std::io::Error> =
        entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "py"));
    paths.sort();
    let program = |path: PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Program { name, args: vec![path.into()], bundled: true }
    };
    Ok(paths.into_iter().map(program).collect())
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 40;
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_programs_are_of_every_kind() {
        let programs = bundled().unwrap();
        for kind in ["tree", "json", "text", "dict", "class", "async"] {
            assert!(programs.iter().any(|program| program.name.contains(kind)), "no {kind}");
        }
    }

    #[test]
    fn a_long_command_is_named_by_its_beginning() {
        assert_eq!(shortened("a.py 1 2"), "a.py 1 2");
        assert_eq!(shortened(&"ü".repeat(50)), format!("{}…", "ü".repeat(40)));
    }
}
