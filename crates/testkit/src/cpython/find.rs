//! Which shared libpythons this machine has.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The libpythons that can be started, sorted by path.
///
/// `OBMALLOC_PYTHONS` names interpreters (`PREFIX/bin/python3`), as a list of the form of `PATH`;
/// without it the versions that pyenv has installed are taken. Interpreters that are linked
/// statically have no library to load and are left out, as are versions without known rules.
pub fn libpythons() -> Vec<PathBuf> {
    let mut found: Vec<_> = prefixes().iter().flat_map(|prefix| in_prefix(prefix)).collect();
    found.sort();
    found.dedup();
    found
}

fn prefixes() -> Vec<PathBuf> {
    match env::var_os("OBMALLOC_PYTHONS") {
        Some(list) => env::split_paths(&list).filter_map(|python| prefix_of(&python)).collect(),
        None => pyenv().map_or_else(Vec::new, |versions| entries(&versions)),
    }
}

/// The prefix of `PREFIX/bin/python3`, symbolic links followed.
fn prefix_of(python: &Path) -> Option<PathBuf> {
    Some(python.canonicalize().ok()?.parent()?.parent()?.to_owned())
}

fn pyenv() -> Option<PathBuf> {
    let root = env::var_os("PYENV_ROOT").map(PathBuf::from);
    root.or_else(|| Some(env::home_dir()?.join(".pyenv"))).map(|root| root.join("versions"))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    folder.read_dir().into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn in_prefix(prefix: &Path) -> Vec<PathBuf> {
    let mut found = entries(&prefix.join("lib"));
    found.retain(|path| minor(path).is_some_and(|minor| (7..=14).contains(&minor)));
    found
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
