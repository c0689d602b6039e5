//! The value of `LD_PRELOAD`.
//!
//! glibc's loader splits `LD_PRELOAD` at colons and spaces, and expands words that begin with a
//! dollar sign, such as `$ORIGIN`. None of these three characters can be escaped. If the path of a
//! library contains one of them, we create a symbolic link to the library's folder, at a path
//! without these characters. `LD_PRELOAD` then lists a path that leads through this link to the
//! library.
//!
//! We list our libraries before those that `LD_PRELOAD` already contains. The runtimes of
//! sanitizers are an exception and stay first, because AddressSanitizer ends a program in which its
//! runtime is not the first library.

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

/// Returns a value of `LD_PRELOAD` that lists the sanitizers in `inherited`, then `libraries`, and
/// then the other libraries in `inherited`.
///
/// # Errors
///
/// Fails as [`listable`] does.
pub fn value(libraries: &[&Path], inherited: Option<&OsStr>) -> Result<OsString> {
    let ours: Result<Vec<_>> = libraries.iter().map(|library| listable(library)).collect();
    Ok(joined(&ours?, inherited.unwrap_or_default()))
}

fn joined(ours: &[PathBuf], inherited: &OsStr) -> OsString {
    let others =
        words(inherited).filter(|other| !ours.iter().any(|library| library.as_os_str() == *other));
    let (mut all, others): (Vec<_>, Vec<_>) = others.partition(|other| is_sanitizer(other));
    all.extend(ours.iter().map(|library| library.as_os_str()));
    all.extend(others);
    all.join(OsStr::new(":"))
}

/// Returns the libraries that `value` lists.
fn words(value: &OsStr) -> impl Iterator<Item = &OsStr> {
    let words = value.as_bytes().split(|byte| b" :".contains(byte));
    words.map(OsStr::from_bytes).filter(|word| !word.is_empty())
}

/// Returns true if `value` lists the runtime of a sanitizer.
pub fn lists_sanitizer(value: &OsStr) -> bool {
    words(value).any(is_sanitizer)
}

/// The prefixes of the file names of sanitizer runtimes. The last one is LLVM's, and the others are
/// GCC's.
const SANITIZERS: [&str; 6] =
    ["libasan.", "libhwasan.", "liblsan.", "libtsan.", "libubsan.", "libclang_rt."];

fn is_sanitizer(library: &OsStr) -> bool {
    let name = Path::new(library).file_name().unwrap_or_default().as_bytes();
    SANITIZERS.iter().any(|start| name.starts_with(start.as_bytes()))
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

    /// Regression test: AddressSanitizer does not start a program that loads another library before
    /// its runtime.
    #[test]
    fn the_runtimes_of_sanitizers_stay_before_ours() {
        let ours = [PathBuf::from("/o/a.so")];
        for runtime in [
            "/usr/lib/gcc/x86_64-linux-gnu/12/libasan.so",
            "libasan.so.8",
            "/lib/libtsan.so.2",
            "liblsan.so.0",
            "libubsan.so.1",
            "libhwasan.so.0",
            "/usr/lib/clang/19/lib/linux/libclang_rt.asan-x86_64.so",
        ] {
            let inherited = format!("/x.so {runtime}:y.so");
            let expected = format!("{runtime}:/o/a.so:/x.so:y.so");
            assert_eq!(joined(&ours, inherited.as_ref()), *expected);
        }
        assert_eq!(joined(&ours, "/libasan.so/x.so".as_ref()), "/o/a.so:/libasan.so/x.so");
    }

    #[test]
    fn the_characters_that_the_loader_interprets_are_known() {
        for path in ["/a b/x.so", "/a:b/x.so", "/$LIB/x.so"] {
            assert!(!is_listable(path.as_ref()), "{path}");
        }
        assert!(is_listable("/ü/x,y.so".as_ref()));
    }
}
