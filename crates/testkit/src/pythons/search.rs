use std::{
    collections::BTreeSet,
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use super::{brought, python::Python};

/// The environment variable that lists the Pythons to use instead of a search.
pub const NAMED: &str = "OBMALLOC_PYTHONS";

/// Returns true if the environment variable [`NAMED`] is set.
pub fn are_named() -> bool {
    named().is_some()
}

fn named() -> Option<OsString> {
    env::var_os(NAMED).filter(|named| !named.is_empty())
}

/// Returns the CPythons on this machine without duplicates, sorted by version and path.
pub fn find() -> Vec<Python> {
    search().pythons
}

/// The result of a search for Pythons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// The CPythons that were found, without duplicates, sorted by version and path.
    pub pythons: Vec<Python>,
    /// The programs that did not answer like CPython.
    pub silent: Vec<PathBuf>,
}

/// Searches for CPythons, and reports the programs that did not answer.
pub fn search() -> Search {
    match named() {
        Some(named) => Search::of(env::split_paths(&named).collect()),
        None => Search::of(usual_places()),
    }
}

impl Search {
    fn of(places: Vec<PathBuf>) -> Self {
        let mut search = Self::default();
        let mut programs = BTreeSet::new();
        for place in places {
            let Some(python) = Python::ask(&place) else {
                search.silent.push(place);
                continue;
            };
            if programs.insert(fs::canonicalize(&python.executable).ok()) {
                search.pythons.push(python);
            }
        }
        let order = |python: &Python| (python.version, python.executable.clone());
        search.pythons.sort_by_key(order);
        search
    }
}

fn usual_places() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|folder| folder.join("python3"));
    let root = env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| Some(env::home_dir()?.join(".pyenv")));
    let pyenv = entries(root.unwrap_or_default().join("versions"));
    let pyenv = pyenv.into_iter().map(|version| version.join("bin/python3"));
    let debian = entries(PathBuf::from("/usr/bin")).into_iter().filter(|path| is_python(path));
    let places = on_path.chain(pyenv).chain(debian).chain(brought::executables());
    places.filter(|place| place.exists()).collect()
}

/// Returns true for names such as `python3`, `python3.13` and `python3.13t`.
fn is_python(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let minor = name.strip_prefix("python3.");
    let minor = minor.map(|minor| minor.strip_suffix('t').unwrap_or(minor));
    name == "python3" || minor.is_some_and(|minor| minor.parse::<u8>().is_ok())
}

fn entries(folder: PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_interpreters_are_found_in_a_folder_of_programs() {
        let taken = ["python3", "python3.11", "python3.13t"];
        let left = ["python3-config", "python3.11-config", "python3t"];
        assert_eq!(taken.map(|name| is_python(Path::new(name))), [true; 3]);
        assert_eq!(left.map(|name| is_python(Path::new(name))), [false; 3]);
    }

    #[test]
    fn files_that_do_not_answer_are_reported() {
        let none = PathBuf::from("/no/such/python3");
        let other = PathBuf::from("/bin/true");
        let search = Search::of(vec![none.clone(), other.clone()]);
        assert_eq!(search, Search { pythons: vec![], silent: vec![none, other] });
    }

    #[test]
    fn a_program_with_several_names_is_found_once() {
        let python = find().pop().expect("no CPython is found; name some in OBMALLOC_PYTHONS");
        let folder = env::temp_dir().join(format!("testkit-pythons-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let link = folder.join("python3");
        std::os::unix::fs::symlink(&python.executable, &link).unwrap();
        let found = Search::of(vec![python.executable.clone(), link, python.executable]).pythons;
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
    }
}
