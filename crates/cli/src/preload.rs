//! The value of `LD_PRELOAD`.
//!
//! glibc's loader splits `LD_PRELOAD` at colons and spaces, and expands words that begin with a
//! dollar sign, such as `$ORIGIN`. None of these three characters can be escaped. If the path of a
//! library contains one of them, we create a symbolic link to the library's folder, at a path
//! without these characters. `LD_PRELOAD` then lists a path that leads through this link to the
//! library.

#![forbid(unsafe_code)]

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::{
    failure::{Failure, Result},
    own_folder,
};

/// The variable that the loader reads.
pub const VARIABLE: &str = "LD_PRELOAD";

/// Returns true if `path` contains no character that the loader interprets in `LD_PRELOAD`.
pub fn is_listable(path: &Path) -> bool {
    !path.as_os_str().as_bytes().iter().any(|byte| b" :$".contains(byte))
}

/// Returns a path of `library` that can be listed in `LD_PRELOAD`.
///
/// # Errors
///
/// Fails if the path of `library` contains a special character and no link can be created.
pub fn listable(library: &Path) -> Result<PathBuf> {
    if is_listable(library) {
        return Ok(library.to_owned());
    }
    let (Some(folder), Some(name)) = (library.parent(), library.file_name()) else {
        return Err(Failure::new(format!("{} is no library", library.display())));
    };
    Ok(own_folder::link_to(folder, is_listable)?.join(name))
}

/// Returns a value of `LD_PRELOAD` that lists `libraries`, and then the libraries in `inherited`.
///
/// # Errors
///
/// Fails as [`listable`] does.
pub fn value(libraries: &[&Path], inherited: Option<&OsStr>) -> Result<OsString> {
    let ours: Result<Vec<_>> = libraries.iter().map(|library| listable(library)).collect();
    Ok(joined(&ours?, inherited.unwrap_or_default()))
}

fn joined(ours: &[PathBuf], inherited: &OsStr) -> OsString {
    let words = inherited.as_bytes().split(|byte| b" :".contains(byte));
    let others = words.map(OsStr::from_bytes).filter(|other| {
        !other.is_empty() && !ours.iter().any(|library| library.as_os_str() == *other)
    });
    let all: Vec<_> = ours.iter().map(|library| library.as_os_str()).chain(others).collect();
    all.join(OsStr::new(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_come_first_and_are_listed_once() {
        let ours = [PathBuf::from("/o/a.so"), PathBuf::from("/o/b.so")];
        assert_eq!(joined(&ours, "".as_ref()), "/o/a.so:/o/b.so");
        assert_eq!(joined(&ours, "/x.so y.so:/o/a.so".as_ref()), "/o/a.so:/o/b.so:/x.so:y.so");
    }

    #[test]
    fn the_characters_that_the_loader_interprets_are_known() {
        for path in ["/a b/x.so", "/a:b/x.so", "/$LIB/x.so"] {
            assert!(!is_listable(path.as_ref()), "{path}");
        }
        assert!(is_listable("/ü/x,y.so".as_ref()));
    }
}
