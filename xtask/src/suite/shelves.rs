//! Decides which test files run on which Pythons.

use anyhow::{Result, ensure};
use testkit::pythons::{self, Python};

use super::files::{self, File, Part};
use crate::process;

#[derive(Debug)]
pub(super) enum Extent {
    /// Every file on every Python.
    All,
    /// Quick files on every Python, and each slow file on one Python.
    Part,
    /// These files on every Python.
    Only(Vec<String>),
}

#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) python: &'a Python,
    pub(super) file: File,
}

#[derive(Debug)]
pub(super) struct Shelf<'a> {
    pub(super) python: &'a Python,
    files: Vec<File>,
}

impl<'a> Shelf<'a> {
    pub(super) fn of(python: &'a Python) -> Result<Self> {
        const QUESTION: &str = "import importlib.util, sys\n\
                                for name in sys.argv[1:]:\n    \
                                    if importlib.util.find_spec('test.' + name): print(name)";
        let mut command = pythons::clean_command(&python.executable);
        let names = files::all().map(|file| file.name);
        let answer = process::stdout_of(command.args(["-c", QUESTION]).args(names))?;
        let has = |file: &File| answer.lines().any(|line| line == file.name);
        Ok(Self { python, files: files::all().filter(has).collect() })
    }

    pub(super) fn missing(&self) -> Vec<&'static str> {
        files::all().filter(|file| !self.files.contains(file)).map(|file| file.name).collect()
    }
}

/// Returns the jobs in the order in which they start.
///
/// # Errors
///
/// Fails if `extent` names an unknown file.
pub(super) fn jobs<'a>(shelves: &[Shelf<'a>], extent: &Extent) -> Result<Vec<Job<'a>>> {
    if let Extent::Only(names) = extent {
        for name in names {
            ensure!(files::all().any(|file| file.name == name), "{name} is not compared");
        }
    }
    let mut jobs = Vec::new();
    let mut turn = 0;
    for file in files::all() {
        let with_file = shelves.iter().filter(|shelf| shelf.files.contains(&file));
        let mut pythons: Vec<_> = with_file.map(|shelf| shelf.python).collect();
        match (extent, file.part) {
            (Extent::All, _) | (Extent::Part, Part::Everywhere) => {}
            (Extent::Only(names), _) if names.iter().any(|name| name == file.name) => {}
            (Extent::Part, Part::Somewhere) if !pythons.is_empty() => {
                turn += 1;
                pythons = vec![pythons[turn % pythons.len()]];
            }
            _ => continue,
        }
        jobs.extend(pythons.into_iter().map(|python| Job { python, file }));
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
    fn a_named_file_runs_alone() {
        let found = pythons::find();
        let with_tests = found.iter().filter(|python| python.ships_tests);
        let shelves: Vec<_> = with_tests.map(|python| Shelf::of(python).unwrap()).collect();
        let jobs = jobs(&shelves, &Extent::Only(vec!["test_int".to_owned()])).unwrap();
        assert_eq!(jobs.len(), shelves.len());
        assert!(jobs.iter().all(|job| job.file.name == "test_int"));
    }

    #[test]
    fn a_python_has_a_file_or_lacks_it() {
        for python in pythons::find().iter().filter(|python| python.ships_tests) {
            let shelf = Shelf::of(python).unwrap();
            let (had, missing) = (shelf.files.len(), shelf.missing());
            assert_eq!(had + missing.len(), files::all().count(), "{}", python.name());
            assert!(!missing.contains(&"test_dict"), "{}", python.name());
        }
    }

    #[test]
    fn a_name_without_a_file_is_an_error() {
        let names = ["test_int", "test_itn"].map(str::to_owned).to_vec();
        let error = jobs(&[], &Extent::Only(names)).unwrap_err();
        assert_eq!(error.to_string(), "test_itn is not compared");
    }
}
