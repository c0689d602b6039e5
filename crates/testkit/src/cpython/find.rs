//! Which shared libpythons this machine has.

use std::{
    env,
    path::{Path, PathBuf},
};

/// A shared libpython, and the installation that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Libpython {
    /// The library's file.
    pub path: PathBuf,
    /// Where its standard library is, as `PYTHONHOME` wants it.
    pub home: PathBuf,
}

/// The libpythons that can be started, sorted by path.
///
/// `OBMALLOC_PYTHONS` names interpreters (`PREFIX/bin/python3`), as a list of the form of `PATH`;
/// without it those on the `PATH` and those that pyenv has installed are taken. Interpreters that
/// are linked statically have no library to load and are left out, as are versions without known
/// rules.
pub fn libpythons() -> Vec<Libpython> {
    let homes = match env::var_os("OBMALLOC_PYTHONS") {
        Some(list) => env::split_paths(&list).filter_map(|python| home_of(&python)).collect(),
        None => default_homes(),
    };
    let mut found: Vec<_> = homes.iter().flat_map(|home| in_home(home)).collect();
    found.sort();
    found.dedup();
    found
}

fn default_homes() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).filter_map(|folder| home_of(&folder.join("python3")));
    let root = env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| Some(env::home_dir()?.join(".pyenv")));
    let in_pyenv = root.map_or_else(Vec::new, |root| entries(&root.join("versions")));
    on_path.chain(in_pyenv).collect()
}

/// The prefix of `PREFIX/bin/python3`, symbolic links followed.
fn home_of(python: &Path) -> Option<PathBuf> {
    Some(python.canonicalize().ok()?.parent()?.parent()?.to_owned())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    folder.read_dir().into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// The libraries under `home`: in `lib`, in `lib64`, and in `lib/x86_64-linux-gnu` and its like.
fn in_home(home: &Path) -> Vec<Libpython> {
    let libraries = entries(&home.join("lib"));
    let of_a_platform = |path: &&PathBuf| path.to_string_lossy().ends_with("-linux-gnu");
    let deeper: Vec<_> =
        libraries.iter().filter(of_a_platform).flat_map(|folder| entries(folder)).collect();
    let all = libraries.into_iter().chain(deeper).chain(entries(&home.join("lib64")));
    all.filter(|path| minor(path).is_some_and(|minor| (7..=14).contains(&minor)))
        .map(|path| Libpython { path, home: home.to_owned() })
        .collect()
}

/// 13 of `libpython3.13.so.1.0`; `None` of other files, and of builds with an ABI flag that changes
/// the allocators (`d` debug, `t` free-threaded).
fn minor(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let minor = name.strip_prefix("libpython3.")?.strip_suffix(".so.1.0")?;
    minor.strip_suffix('m').unwrap_or(minor).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_told_by_its_name() {
        let minor = |name: &str| minor(Path::new(name));
        assert_eq!(minor("/usr/lib/libpython3.13.so.1.0"), Some(13));
        assert_eq!(minor("libpython3.7m.so.1.0"), Some(7));
        assert_eq!(minor("libpython3.13d.so.1.0"), None);
        assert_eq!(minor("libpython3.13t.so.1.0"), None);
        assert_eq!(minor("libpython3.so"), None);
    }
}
