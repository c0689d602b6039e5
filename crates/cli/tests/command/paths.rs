use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use crate::support::{MAPPED, Run, libdir, obmalloc};

/// Copies the library to a folder called `name` below `parent`.
fn copied(parent: &Path, name: &str) -> PathBuf {
    let folder = parent.join(name);
    fs::create_dir(&folder).unwrap();
    let file = "libobmalloc_cpython.so";
    fs::copy(libdir().join(file), folder.join(file)).unwrap();
    folder
}

#[test]
fn a_path_that_the_loader_would_split_or_expand_works_in_children_too() {
    for name in ["with space", "with:colon", "with$LIB", "with two  spaces: and ${ORIGIN}"] {
        let parent = tempfile::tempdir().unwrap();
        let runtime = parent.path().join("runtime");
        fs::create_dir(&runtime).unwrap();
        let mut command = obmalloc(["run", "-c", MAPPED]);
        command.env("OBMALLOC_LIBDIR", copied(parent.path(), name));
        let run = Run::of(command.env("XDG_RUNTIME_DIR", &runtime)).succeeds();
        assert_eq!(run.stdout, "True\nTrue\n", "{name}");
        let mode = fs::metadata(runtime.join("obmalloc")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}

#[test]
fn a_folder_that_others_prepared_is_not_used_for_links() {
    let parent = tempfile::tempdir().unwrap();
    let (open, home) = (parent.path().join("open"), parent.path().join("home"));
    fs::create_dir_all(open.join("obmalloc")).unwrap();
    fs::create_dir(&home).unwrap();
    fs::set_permissions(open.join("obmalloc"), fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = obmalloc(["run", "--", "sh", "-c", "echo $LD_PRELOAD"]);
    command.env("OBMALLOC_LIBDIR", copied(parent.path(), "a b")).env_remove("XDG_CACHE_HOME");
    let run = Run::of(command.env("XDG_RUNTIME_DIR", &open).env("HOME", &home)).succeeds();
    assert!(run.stdout.starts_with(home.to_str().unwrap()), "{run:?}");
    assert_eq!(fs::read_dir(open.join("obmalloc")).unwrap().count(), 0);
}

#[test]
fn a_library_that_is_missing_or_no_file_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = obmalloc(["run", "-c", "pass"]);
    let run = Run::of(command.env("OBMALLOC_LIBDIR", folder.path()));
    run.fails(125, &["cannot find libobmalloc_cpython.so", "because", "pip install"]);
    symlink("/nowhere", folder.path().join("libobmalloc_cpython.so")).unwrap();
    let run = Run::of(command.env("OBMALLOC_LIBDIR", folder.path()));
    run.fails(125, &["cannot find libobmalloc_cpython.so"]);
}
