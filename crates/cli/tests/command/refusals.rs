use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Run, compiled, is_root, libdir, obmalloc};

const LIBRARY: &str = "libobmalloc_cpython.so";

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
    let run = Run::of(obmalloc(["run", "--strict"]).arg(&program));
    run.fails(126, &["--strict", "linked statically"]);
}

#[test]
fn another_allocator_of_cpython_is_mentioned_and_with_strict_refused() {
    let code = "print('ran')";
    let with =
        |words: &[&str]| Run::of(obmalloc(words).args(["-c", code]).env("PYTHONMALLOC", "malloc"));
    let run = with(&["run"]);
    assert_eq!((run.code, &*run.stdout), (Some(0), "ran\n"), "{run:?}");
    assert!(run.stderr.contains("PYTHONMALLOC=malloc") && run.stderr.lines().count() == 1);
    with(&["run", "--quiet"]).succeeds();
    let run = with(&["run", "--strict"]).fails(125, &["PYTHONMALLOC=malloc"]);
    assert!(run.stdout.is_empty() && run.stderr.lines().count() == 1, "{run:?}");
    Run::of(&mut obmalloc(["run", "--strict", "-c", code])).succeeds();
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
    let sudo = folder.path().join("sudo");
    fs::rename(program, &sudo).unwrap();
    let run = Run::of(obmalloc(["run"]).arg(&sudo));
    run.fails(126, &["set-user-ID", "try: sudo obmalloc run"]);
}

#[test]
fn a_program_with_file_capabilities_is_refused_unless_root_starts_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = compiled(folder.path(), &[]);
    let set = Command::new("setcap").arg("cap_net_bind_service=ep").arg(&program).status();
    if !is_root() || !set.is_ok_and(|status| status.success()) {
        println!("only root can give capabilities to a file");
        return;
    }
    Run::of(obmalloc(["run", "--strict"]).arg(&program)).succeeds();
    let libraries = folder.path().join("lib");
    fs::create_dir(&libraries).unwrap();
    fs::copy(libdir().join(LIBRARY), libraries.join(LIBRARY)).unwrap();
    let command = folder.path().join("obmalloc");
    fs::copy(env!("CARGO_BIN_EXE_obmalloc"), &command).unwrap();
    let run = |program: &Path| {
        let mut other_user = Command::new("setpriv");
        other_user.args(["--reuid=4321", "--regid=4321", "--clear-groups"]).arg(&command);
        Run::of(other_user.arg("run").arg(program).env("OBMALLOC_LIBDIR", &libraries))
    };
    run(&program).fails(126, &["/p\n", "file-capability", "LD_PRELOAD", "try: a copy"]);
    let copy = folder.path().join("copy");
    fs::copy(&program, &copy).unwrap();
    run(&copy).succeeds();
}

#[test]
fn a_damaged_library_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join(LIBRARY);
    let run = || {
        let mut command = obmalloc(["run", "--strict", "--", "true"]);
        Run::of(command.env("OBMALLOC_LIBDIR", folder.path()))
    };
    fs::write(&library, "").unwrap();
    run().fails(125, &["cannot read", LIBRARY, "no 64-bit ELF file", "try:"]);
    let mut bytes = fs::read(libdir().join(LIBRARY)).unwrap();
    fs::write(&library, &bytes[..0x10000]).unwrap();
    run().fails(125, &["its end is missing"]);
    bytes[18] = 0xf3;
    fs::write(&library, &bytes).unwrap();
    run().fails(125, &["another machine"]);
    fs::copy(libdir().join(LIBRARY), &library).unwrap();
    fs::write(folder.path().join("libobmalloc.so"), "").unwrap();
    run().succeeds();
    let mut command = obmalloc(["run", "--malloc", "--", "true"]);
    let run = Run::of(command.env("OBMALLOC_LIBDIR", folder.path()));
    run.fails(125, &["libobmalloc.so", "no 64-bit ELF file"]);
}

#[test]
fn a_script_that_clears_the_environment_is_mentioned_and_with_strict_refused() {
    let folder = tempfile::tempdir().unwrap();
    let script = put_script(folder.path(), "#!/usr/bin/env -S -i /bin/sh\necho ran");
    let run = Run::of(obmalloc(["run"]).arg(&script));
    assert_eq!((run.code, &*run.stdout), (Some(0), "ran\n"), "{run:?}");
    assert!(run.stderr.contains("removes LD_PRELOAD") && run.stderr.lines().count() == 1);
    Run::of(obmalloc(["run", "--quiet"]).arg(&script)).succeeds();
    let run = Run::of(obmalloc(["run", "--strict"]).arg(&script));
    assert!(run.fails(125, &["--strict", "removes LD_PRELOAD"]).stdout.is_empty());
}

#[test]
fn a_script_that_the_system_can_start_is_not_refused() {
    let folder = tempfile::tempdir().unwrap();
    for line in [
        "-S -u FOO sh",
        "-S --unset=FOO A=1 sh",
        "-S 'sh'",
        "-S ${SHELL_OF_THE_TEST} -e",
        "-S -C / sh",
    ] {
        let script = put_script(folder.path(), &format!("#!/usr/bin/env {line}\necho ran"));
        let mut command = obmalloc(["run", "--strict"]);
        let run = Run::of(command.arg(&script).env("SHELL_OF_THE_TEST", "sh")).succeeds();
        assert_eq!(run.stdout, "ran\n", "{line}");
    }
}

fn put_script(folder: &Path, text: &str) -> PathBuf {
    let script = folder.join("script");
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

#[test]
fn a_python_2_is_mentioned_and_with_strict_refused() {
    let folder = tempfile::tempdir().unwrap();
    let python = folder.path().join("python2.7");
    fs::rename(compiled(folder.path(), &[]), &python).unwrap();
    let with = |words: &[&str]| {
        Run::of(obmalloc(["run"]).args(words).arg("--python").arg(&python).args(["-c", "pass"]))
    };
    let run = with(&[]);
    assert_eq!((run.code, run.stderr.lines().count()), (Some(0), 1), "{run:?}");
    assert!(run.stderr.contains("is a Python 2"), "{run:?}");
    with(&["--quiet"]).succeeds();
    with(&["--strict"]).fails(125, &["--strict", "is a Python 2", "CPython 3.8"]);
    let script = put_script(folder.path(), &format!("#!{}\n", python.display()));
    let run = Run::of(obmalloc(["run", "--strict"]).arg(&script));
    run.fails(125, &["is a Python 2"]);
}

/// The library recognises such a Python 2 too. It prints its line if a variable is set.
///
/// Regression test: the command and the library each printed a line.
#[test]
fn a_python_2_that_the_library_recognises_is_mentioned_once() {
    let folder = tempfile::tempdir().unwrap();
    let version = "const char *Py_GetVersion(void) { return \"2.7.18 (default)\"; }";
    let build = |name: &str, source: &str, flags: &[&str]| {
        let (code, product) = (folder.path().join("p.c"), folder.path().join(name));
        fs::write(&code, source).unwrap();
        let mut cc = Command::new("cc");
        cc.arg(&code).arg("-o").arg(&product).args(flags);
        assert!(cc.status().unwrap().success());
        product
    };
    let main = "int main(void) { return 0; }";
    let exporting = build("python2.7", &format!("{version} {main}"), &["-rdynamic"]);
    let soname = "-Wl,-soname=libpython2.7.so.1.0";
    let library = build("libpython2.7.so.1.0", version, &["-shared", "-fPIC", soname]);
    let rpath = format!("-Wl,-rpath,{}", folder.path().display());
    let linked = ["-Wl,--no-as-needed", &rpath, library.to_str().unwrap()];
    let linked = build("python", main, &linked);
    for python in [exporting, linked] {
        let script = put_script(folder.path(), &format!("#!{}\n", python.display()));
        for words in [&[][..], &["--stats"], &["--no-status"]] {
            let mut command = obmalloc(["run"]);
            let run = Run::of(command.args(words).arg("--").arg(&python));
            assert_eq!((run.code, run.stderr.lines().count()), (Some(0), 1), "{run:?}");
            assert!(run.stderr.contains("only 3.8 and later are"), "{run:?}");
            let run = Run::of(obmalloc(["run"]).args(words).arg(&script));
            assert_eq!((run.code, run.stderr.lines().count()), (Some(0), 1), "{run:?}");
        }
        let run = Run::of(obmalloc(["run", "--"]).arg(&python).env("OBMALLOC_STATUS", ""));
        assert_eq!((run.code, run.stderr.lines().count()), (Some(0), 1), "{run:?}");
        Run::of(obmalloc(["run", "--quiet", "--"]).arg(&python)).succeeds();
        let run = Run::of(obmalloc(["run", "--strict", "--"]).arg(&python));
        run.fails(125, &["--strict", "is a Python 2", "CPython 3.8"]);
        let run = Run::of(obmalloc(["doctor", "--"]).arg(&python));
        assert_eq!(run.stderr.matches("3.8 and later are").count(), 1, "{run:?}");
    }
}

#[test]
fn a_choice_of_python_for_a_command_is_refused() {
    let run = Run::of(&mut obmalloc(["run", "--python", "python3", "true"]));
    run.fails(2, &["--python", "true is a command", "try: obmalloc run -- python3 true"]);
}

#[test]
fn an_unknown_place_for_statistics_is_refused() {
    let run = Run::of(&mut obmalloc(["run", "--stats=plain", "-c", "print('ran')"]));
    let run = run.fails(2, &["'plain'", "--stats", "a slash, a dot or %p"]);
    assert!(run.stdout.is_empty(), "{run:?}");
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
    let library = libraries.join(LIBRARY);
    fs::copy(libdir().join(LIBRARY), &library).unwrap();
    fs::set_permissions(&library, fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = obmalloc(["run", "--", "true"]);
    if is_root() {
        // Root may read every file, so we run the program as another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = folder.path().join("obmalloc");
        fs::copy(env!("CARGO_BIN_EXE_obmalloc"), &program).unwrap();
        command = Command::new("setpriv");
        command.args(["--reuid=4321", "--regid=4321", "--clear-groups"]).arg(program);
        command.args(["run", "--", "true"]);
    }
    let run = Run::of(command.env("OBMALLOC_LIBDIR", &libraries));
    run.fails(125, &["cannot read", "Permission denied", "try:"]);
    // Now the folder cannot be read either.
    fs::set_permissions(&libraries, fs::Permissions::from_mode(0o000)).unwrap();
    let run = Run::of(command.env("OBMALLOC_LIBDIR", &libraries));
    fs::set_permissions(&libraries, fs::Permissions::from_mode(0o700)).unwrap();
    run.fails(125, &["cannot read", "Permission denied", "try:"]);
}

#[test]
fn a_program_of_another_user_who_cannot_read_the_library_says_so() {
    if !is_root() {
        println!("only root can start a program as another user");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::copy(libdir().join(LIBRARY), folder.path().join(LIBRARY)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = obmalloc(["run", "--", "setpriv", "--reuid=4321", "--regid=4321"]);
    command.args(["--clear-groups", "true"]).env("OBMALLOC_LIBDIR", folder.path());
    let run = Run::of(&mut command);
    let line = run.stderr.as_str();
    assert!(line.contains(LIBRARY) && line.contains("cannot be preloaded"), "{run:?}");
    assert_eq!((run.code, line.lines().count()), (Some(0), 1), "{run:?}");
}
