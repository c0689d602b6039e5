use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, process::Command};

use crate::support::{Run, libdir, obmalloc};

#[test]
fn a_shell_can_evaluate_the_variables() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("it's a folder");
    fs::create_dir(&odd).unwrap();
    fs::copy(libdir().join("libobmalloc_cpython.so"), odd.join("libobmalloc_cpython.so")).unwrap();
    for libraries in [libdir(), &odd] {
        let mut command = obmalloc(["env"]);
        command.env("OBMALLOC_LIBDIR", libraries).env("XDG_RUNTIME_DIR", folder.path());
        let exports = Run::of(&mut command).succeeds().stdout;
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{exports} cat /proc/self/maps")]).env_remove("LD_PRELOAD");
        assert!(Run::of(&mut shell).succeeds().stdout.contains("libobmalloc_cpython"));
    }
    for syntax in ["--docker", "--systemd"] {
        let run = Run::of(obmalloc(["env", syntax]).env("OBMALLOC_LIBDIR", &odd));
        run.fails(125, &["spaces and colons"]);
    }
}

#[test]
fn a_file_format_has_a_line_and_advice() {
    let library = libdir().join("libobmalloc_cpython.so").display().to_string();
    let line = |syntax| Run::of(&mut obmalloc(["env", syntax])).succeeds().stdout;
    assert!(line("--docker").contains(&format!("\nENV LD_PRELOAD={library}\n")));
    assert!(line("--systemd").contains(&format!("\nEnvironment=LD_PRELOAD={library}\n")));
    let path = Run::of(&mut obmalloc(["path"])).succeeds().stdout;
    assert_eq!(path.trim(), library);
    Run::of(&mut obmalloc(["env", "--sh", "--docker"])).fails(2, &["cannot be used with"]);
}

#[test]
fn completions_and_manual_pages_are_made() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Run::of(&mut obmalloc(["completions", shell])).succeeds().stdout;
        assert!(script.contains("doctor"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    Run::of(obmalloc(["man"]).arg(folder.path())).succeeds();
    assert!(folder.path().join("obmalloc-run.1").exists());
}

#[test]
fn a_path_that_is_no_utf_8_is_printed_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join(OsStr::from_bytes(b"it's \xff"));
    let odd = fs::create_dir(&odd).map(|()| odd).unwrap();
    let library = odd.join("libobmalloc_cpython.so");
    fs::copy(libdir().join("libobmalloc_cpython.so"), &library).unwrap();
    let output = obmalloc(["path"]).env("OBMALLOC_LIBDIR", &odd).output().unwrap();
    assert_eq!(output.stdout, [library.as_os_str().as_bytes(), b"\n"].concat());
    let plain = folder.path().join(OsStr::from_bytes(b"it's-\xff"));
    fs::rename(&odd, &plain).unwrap();
    let output = obmalloc(["env"]).env("OBMALLOC_LIBDIR", &plain).output().unwrap();
    let script = [&output.stdout[..], b"cat /proc/self/maps"].concat();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(OsStr::from_bytes(&script)).env_remove("LD_PRELOAD");
    assert!(Run::of(&mut shell).succeeds().stdout.contains("libobmalloc_cpython"));
}
