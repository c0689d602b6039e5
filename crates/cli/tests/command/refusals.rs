use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use crate::support::{Run, compiled, is_root, libdir, obmalloc};

const MUSL: &str = "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1";

#[test]
fn a_musl_program_is_refused_before_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    let program = compiled(folder.path(), &[MUSL]);
    let run = Run::of(obmalloc(["run", "--"]).arg(&program));
    run.fails(126, &["needs musl", "needs glibc", "try:"]);
    let script = folder.path().join("script");
    fs::write(&script, format!("#!/usr/bin/env {}\n", program.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    Run::of(obmalloc(["run"]).arg(&script)).fails(126, &["needs musl"]);
    let run = Run::of(obmalloc(["run", "--python"]).arg(&program).args(["-c", "pass"]));
    run.fails(126, &["needs musl"]);
}

#[test]
fn a_static_program_runs_with_a_remark() {
    let folder = tempfile::tempdir().unwrap();
    let program = compiled(folder.path(), &["-static"]);
    let run = Run::of(obmalloc(["run"]).arg(&program));
    assert!(run.code == Some(0) && run.stderr.contains("linked statically"), "{run:?}");
    Run::of(obmalloc(["run", "--quiet"]).arg(&program)).succeeds();
}

#[test]
fn a_set_user_id_program_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let program = compiled(folder.path(), &[]);
    if std::os::unix::fs::chown(&program, Some(4321), None).is_err() {
        println!("only root can make a program of another user");
        return;
    }
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let run = Run::of(obmalloc(["run"]).arg(&program));
    run.fails(126, &["/p\n", "set-user-ID", "LD_PRELOAD"]);
}

#[test]
fn a_program_that_does_not_exist_is_not_found() {
    Run::of(&mut obmalloc(["run", "--", "no-such-program"])).fails(127, &["no such program"]);
    Run::of(&mut obmalloc(["run", "/etc/passwd"])).fails(126, &["not an executable file"]);
    let mut command = obmalloc(["run", "--python", "no-such-python", "x.py"]);
    Run::of(&mut command).fails(127, &["no-such-python"]);
}

#[test]
fn a_library_that_the_user_cannot_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let libraries = folder.path().join("lib");
    fs::create_dir(&libraries).unwrap();
    let library = libraries.join("libobmalloc_cpython.so");
    fs::copy(libdir().join("libobmalloc_cpython.so"), &library).unwrap();
    fs::set_permissions(&library, fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = obmalloc(["run", "--", "true"]);
    if is_root() {
        // Root may read every file, so another user runs the program.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = folder.path().join("obmalloc");
        fs::copy(env!("CARGO_BIN_EXE_obmalloc"), &program).unwrap();
        command = Command::new("setpriv");
        command.args(["--reuid=4321", "--regid=4321", "--clear-groups"]).arg(program);
        command.args(["run", "--", "true"]);
    }
    let run = Run::of(command.env("OBMALLOC_LIBDIR", &libraries));
    run.fails(125, &["cannot read", "Permission denied", "try:"]);
}
