//! A private folder for symbolic links to the folders of libraries.
//!
//! The paths of the links contain no character that has a special meaning in `LD_PRELOAD`.

#![forbid(unsafe_code)]

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process,
};

use status::folder::{own, user};

use crate::failure::{Failure, Result};

/// Returns the folders that can serve as our private folder, in order of preference.
fn candidates() -> Vec<PathBuf> {
    let below = |variable: &str, rest: &str| {
        let folder = env::var_os(variable).map(PathBuf::from);
        folder.filter(|folder| folder.is_absolute()).map(|folder| folder.join(rest))
    };
    [
        below("XDG_RUNTIME_DIR", "obmalloc"),
        below("XDG_CACHE_HOME", "obmalloc"),
        below("HOME", ".cache/obmalloc"),
        Some(PathBuf::from(format!("/tmp/obmalloc-{}", user()))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns the path of a symbolic link to the folder `target`.
///
/// The link is created in a private folder for whose path `is_usable` returns true.
///
/// # Errors
///
/// Fails if there is no usable folder that only this user can change.
pub(crate) fn link_to(target: &Path, is_usable: impl Fn(&Path) -> bool) -> Result<PathBuf> {
    link_below(candidates(), target, is_usable)
}

fn link_below(
    candidates: Vec<PathBuf>,
    target: &Path,
    is_usable: impl Fn(&Path) -> bool,
) -> Result<PathBuf> {
    let mut reasons = Vec::new();
    for folder in candidates {
        if !is_usable(&folder) {
            reasons.push(format!("{} has such a character too", folder.display()));
            continue;
        }
        match own(&folder).and_then(|()| link(&folder, target)) {
            Ok(link) => return Ok(link),
            Err(error) => reasons.push(format!("{}: {error}", folder.display())),
        }
    }
    Err(Failure::new(format!("cannot make a link to {}", target.display()))
        .because(reasons.join("; ")))
}

fn link(folder: &Path, target: &Path) -> io::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    target.hash(&mut hasher);
    let link = folder.join(format!("lib-{:016x}", hasher.finish()));
    if fs::read_link(&link).is_ok_and(|found| found == target) {
        return Ok(link);
    }
    // We create the link under a temporary name and then rename it, because another process may
    // create the same link meanwhile.
    let new = folder.join(format!("new-{}", process::id()));
    let _ = fs::remove_file(&new);
    symlink(target, &new)?;
    fs::rename(&new, &link)?;
    Ok(link)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_link_is_made_once_in_a_folder_of_our_own() {
        let parent = tempfile::tempdir().unwrap();
        let (folder, target) = (parent.path().join("a/b"), parent.path().join("with space"));
        fs::create_dir(&target).unwrap();
        let first = link_below(vec![folder.clone()], &target, |_| true).unwrap();
        assert_eq!(fs::read_link(&first).unwrap(), target);
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(link_below(vec![folder.clone()], &target, |_| true).unwrap(), first);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("lib");
        let made = link_below(vec![parent.path().join("own")], &target, |_| true).unwrap();
        fs::remove_file(&made).unwrap();
        symlink("/elsewhere", &made).unwrap();
        let again = link_below(vec![parent.path().join("own")], &target, |_| true).unwrap();
        assert_eq!(fs::read_link(again).unwrap(), target);
    }

    #[test]
    fn an_unusable_folder_is_passed_over() {
        let parent = tempfile::tempdir().unwrap();
        let (bad, good) = (parent.path().join("a b"), parent.path().join("c"));
        let is_usable = |path: &Path| !path.to_str().unwrap().contains(' ');
        let link = link_below(vec![bad.clone(), good.clone()], Path::new("/x"), is_usable);
        assert!(link.unwrap().starts_with(&good));
        let error = link_below(vec![bad], Path::new("/x"), is_usable).unwrap_err().to_string();
        assert!(error.contains("such a character"), "{error}");
    }
}
