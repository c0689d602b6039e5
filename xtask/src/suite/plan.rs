//! Which files are run on which Pythons.

use std::collections::{BTreeSet, VecDeque};

use anyhow::{Context, Result};
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

/// What is to be run, in this order.
pub(super) fn jobs<'a>(pythons: &[&'a Python], extent: &Extent) -> Result<VecDeque<Job<'a>>> {
    let shipped: Vec<_> =
        pythons.iter().map(|python| Ok((*python, shipped(python)?))).collect::<Result<_>>()?;
    let mut jobs = VecDeque::new();
    let mut turn = 0;
    for file in files::ALL {
        let with_file = shipped.iter().filter(|(_, files)| files.contains(file.name));
        let with_file: Vec<_> = with_file.map(|(python, _)| *python).collect();
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

/// The files that `python` has.
fn shipped(python: &Python) -> Result<BTreeSet<String>> {
    const QUESTION: &str = "import importlib.util, sys\n\
                            for name in sys.argv[1:]:\n    \
                                if importlib.util.find_spec('test.' + name): print(name)";
    let mut command = pythons::clean_command(&python.executable);
    command.args(["-c", QUESTION]).args(files::ALL.iter().map(|file| file.name));
    let output = command.output().with_context(|| python.name())?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_every_python_and_every_file_that_is_not_long() {
        let found = pythons::find();
        let usable = |python: &&Python| python.is_supported() && python.ships_tests;
        let pythons: Vec<_> = found.iter().filter(usable).collect();
        let all = jobs(&pythons, &Extent::All).unwrap();
        let part = jobs(&pythons, &Extent::Part).unwrap();
        for python in &pythons {
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
        let pythons: Vec<_> = found.iter().filter(|python| python.ships_tests).collect();
        let jobs = jobs(&pythons, &Extent::Only(vec!["test_int".to_owned()])).unwrap();
        assert_eq!(jobs.len(), pythons.len());
        assert!(jobs.iter().all(|job| job.file.name == "test_int"));
    }
}
