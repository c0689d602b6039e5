//! Which files are run on which Pythons.

use std::collections::{BTreeSet, VecDeque};

use anyhow::{Context, Result, ensure};
use testkit::pythons::{self, Python};

use super::files::{self, File, Part};

/// How much is run.
#[derive(Debug)]
pub(super) enum Extent {
    /// Every file on every Python.
    All,
    /// What fits into five minutes: the quick files on every Python, each slow one on one.
    Part,
    /// These files, on every Python.
    Only(Vec<String>),
}

/// One file on one Python.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) python: &'a Python,
    pub(super) file: &'static File,
}

/// A Python, and those of the files that it has.
#[derive(Debug)]
pub(super) struct Shelf<'a> {
    pub(super) python: &'a Python,
    files: BTreeSet<&'static str>,
}

impl<'a> Shelf<'a> {
    /// Asks `python` which of the files it has.
    pub(super) fn of(python: &'a Python) -> Result<Self> {
        const QUESTION: &str = "import importlib.util, sys\n\
                                for name in sys.argv[1:]:\n    \
                                    if importlib.util.find_spec('test.' + name): print(name)";
        let names = || files::ALL.iter().map(|file| file.name);
        let mut command = pythons::clean_command(&python.executable);
        let output = command.args(["-c", QUESTION]).args(names()).output();
        let output = output.with_context(|| python.name())?;
        let answer = String::from_utf8_lossy(&output.stdout);
        let files = names().filter(|name| answer.lines().any(|line| line == *name)).collect();
        Ok(Self { python, files })
    }

    /// The files that it does not have, because another version has them or because somebody
    /// installed a part of CPython's tests only.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let names = files::ALL.iter().map(|file| file.name);
        names.filter(|name| !self.files.contains(name)).collect()
    }
}

/// What is to be run, in this order.
///
/// # Errors
///
/// When a file is named that is none of ours.
pub(super) fn jobs<'a>(shelves: &[Shelf<'a>], extent: &Extent) -> Result<VecDeque<Job<'a>>> {
    if let Extent::Only(names) = extent {
        let is_known = |name: &&String| files::ALL.iter().any(|file| file.name == **name);
        let unknown = names.iter().find(|name| !is_known(name));
        ensure!(unknown.is_none(), "{} is not compared", unknown.map_or("", String::as_str));
    }
    let mut jobs = VecDeque::new();
    let mut turn = 0;
    for file in files::ALL {
        let with_file = shelves.iter().filter(|shelf| shelf.files.contains(file.name));
        let with_file: Vec<_> = with_file.map(|shelf| shelf.python).collect();
        let chosen = match (extent, file.part) {
            (Extent::All, _) | (Extent::Part, Part::Everywhere) => with_file,
            (Extent::Only(names), _) if names.iter().any(|name| name == file.name) => with_file,
            (Extent::Part, Part::Somewhere) if !with_file.is_empty() => {
                turn += 1;
                vec![with_file[turn % with_file.len()]]
            }
            _ => Vec::new(),
        };
        jobs.extend(chosen.into_iter().map(|python| Job { python, file }));
    }
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_every_python_and_every_file_that_is_not_long() {
        let found = pythons::find();
        let usable = |python: &&Python| python.is_supported() && python.ships_tests;
        let shelves: Vec<_> =
            found.iter().filter(usable).map(|python| Shelf::of(python).unwrap()).collect();
        let all = jobs(&shelves, &Extent::All).unwrap();
        let part = jobs(&shelves, &Extent::Part).unwrap();
        for Shelf { python, .. } in &shelves {
            assert!(part.iter().any(|job| job.python == *python), "{}", python.name());
        }
        for Job { file, .. } in all {
            let is_there = part.iter().any(|job| job.file == file);
            assert_eq!(is_there, file.part != Part::Nowhere, "{}", file.name);
        }
    }

    #[test]
    fn a_file_that_is_named_is_run_alone() {
        let found = pythons::find();
        let with_tests = found.iter().filter(|python| python.ships_tests);
        let shelves: Vec<_> = with_tests.map(|python| Shelf::of(python).unwrap()).collect();
        let jobs = jobs(&shelves, &Extent::Only(vec!["test_int".to_owned()])).unwrap();
        assert_eq!(jobs.len(), shelves.len());
        assert!(jobs.iter().all(|job| job.file.name == "test_int"));
    }

    #[test]
    fn a_python_has_a_file_or_misses_it() {
        for python in pythons::find().iter().filter(|python| python.ships_tests) {
            let shelf = Shelf::of(python).unwrap();
            let (had, missing) = (shelf.files.len(), shelf.missing());
            assert_eq!(had + missing.len(), files::ALL.len(), "{}", python.name());
            assert!(!missing.contains(&"test_dict"), "{}", python.name());
        }
    }

    #[test]
    fn a_name_that_is_no_file_is_an_error() {
        let names = ["test_int", "test_itn"].map(str::to_owned).to_vec();
        let error = jobs(&[], &Extent::Only(names)).unwrap_err();
        assert_eq!(error.to_string(), "test_itn is not compared");
    }
}
