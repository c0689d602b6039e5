//! Folders that belong to this user alone.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

/// Returns the id of the effective user.
pub fn user() -> u32 {
    // SAFETY: `geteuid` has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// Returns the folders that can contain status pages, in order of preference.
pub fn candidates() -> Vec<PathBuf> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|folder| folder.is_absolute() && folder.is_dir());
    let temporary = PathBuf::from(format!("/tmp/obmalloc-{}", user()));
    runtime.map(|folder| folder.join("obmalloc")).into_iter().chain([temporary]).collect()
}

/// Creates `folder` unless it exists. Checks that no other user can change its contents.
///
/// # Errors
///
/// Fails if the folder cannot be created, is a symbolic link, belongs to another user, or is
/// writable by other users.
pub fn own(folder: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A parent folder is missing, such as `~/.cache`, so we create the parents too.
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => (),
    }
    let found = fs::symlink_metadata(folder)?;
    let refused = |why: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    if !found.is_dir() {
        return refused("it is not a folder");
    }
    if found.uid() != user() {
        return refused("it belongs to another user");
    }
    if found.mode() & 0o022 != 0 {
        return refused("other users may write to it");
    }
    Ok(())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_folder_that_others_control_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let open = parent.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(own(&open).unwrap_err().to_string().contains("other users"));
        let lured = parent.path().join("lured");
        symlink(parent.path(), &lured).unwrap();
        assert!(own(&lured).unwrap_err().to_string().contains("not a folder"));
        let deep = parent.path().join("a/b");
        own(&deep).unwrap();
        assert_eq!(fs::metadata(&deep).unwrap().mode() & 0o777, 0o700);
        own(&deep).unwrap();
    }
}
