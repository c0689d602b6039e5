use std::{
    fs,
    io::Write,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    process::Stdio,
};

use obmalloc_cli::measure;
use testkit::pythons::clean_command;

use crate::support::{MAPPED, Run, libdir, obmalloc, python};

#[test]
fn a_python_and_its_child_run_on_the_heap() {
    let folder = tempfile::tempdir().unwrap();
    let place = format!("--stats={}/%p.json", folder.path().display());
    Run::of(&mut obmalloc(["run", &place, "-c", MAPPED])).succeeds();
    let reports: Vec<_> = fs::read_dir(folder.path()).unwrap().map(Result::unwrap).collect();
    assert_eq!(reports.len(), 2);
    for report in reports {
        let text = fs::read_to_string(report.path()).unwrap();
        assert!(text.contains(r#""in_force":true"#), "{text}");
    }
}

#[test]
fn each_way_to_name_a_program_works() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("prog.py");
    fs::write(&script, "import sys; print(sys.argv[1:])").unwrap();
    let package = folder.path().join("package");
    fs::create_dir(&package).unwrap();
    fs::copy(&script, package.join("__main__.py")).unwrap();
    let (script, package) = (script.to_str().unwrap(), package.to_str().unwrap());
    let python = python().executable.to_str().unwrap();
    for words in [
        &[script, "--help", "-v"][..],
        &[package, "--help", "-v"],
        &["-c", "import sys; print(sys.argv[1:])", "--help", "-v"],
        &["--", python, script, "--help", "-v"],
        &[python, script, "--help", "-v"],
    ] {
        let run = Run::of(&mut obmalloc([&["run"], words].concat())).succeeds();
        assert_eq!(run.stdout, "['--help', '-v']\n", "{words:?}");
    }
    let run = Run::of(&mut obmalloc(["run", "-m", "platform", "--terse"])).succeeds();
    assert!(run.stdout.starts_with("Linux"), "{run:?}");
}

#[test]
fn a_module_or_code_without_a_space_gets_its_arguments() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.json");
    fs::write(&file, "[1]").unwrap();
    let run = Run::of(obmalloc(["run", "-mjson.tool", "--sort-keys"]).arg(&file)).succeeds();
    assert_eq!(run.stdout, "[\n    1\n]\n");
    let run = Run::of(&mut obmalloc(["run", "-mjson.tool", "--help"])).succeeds();
    assert!(run.stdout.contains("json.tool"), "{run:?}");
    let code = "-cimport sys; print(sys.argv[1:])";
    let run = Run::of(&mut obmalloc(["run", "--strict", code, "--help", "-v"])).succeeds();
    assert_eq!(run.stdout, "['--help', '-v']\n");
}

#[test]
fn a_minus_runs_the_code_that_stdin_has() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.py");
    fs::write(&file, "import sys; print(sys.argv)").unwrap();
    let mut command = obmalloc(["run", "-", "--help"]);
    let run = Run::of(command.stdin(fs::File::open(&file).unwrap())).succeeds();
    assert_eq!(run.stdout, "['-', '--help']\n");
}

#[test]
fn a_program_beside_the_command_is_found_without_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let command = folder.path().join("obmalloc");
    fs::copy(env!("CARGO_BIN_EXE_obmalloc"), &command).unwrap();
    let program = folder.path().join("server");
    fs::write(&program, "#!/bin/sh\necho $1").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let run = |name: &str| {
        let mut command = clean_command(&command);
        command.env("OBMALLOC_LIBDIR", libdir()).args(["run", "--", name, "served"]);
        Run::of(&mut command)
    };
    assert_eq!(run("server").succeeds().stdout, "served\n");
    run("obmallocs").fails(127, &["no such program"]);
    fs::copy(&program, folder.path().join("echo")).unwrap();
    fs::write(folder.path().join("echo"), "#!/bin/sh\nexit 7").unwrap();
    assert_eq!(run("echo").succeeds().stdout, "served\n");
}

/// Regression test: no program was found.
#[test]
fn without_a_path_variable_the_default_path_of_the_system_is_searched() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("own-script");
    fs::write(&script, "#!/usr/bin/env sh\necho ran").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let started = |name: &str| {
        let mut command = obmalloc(["run", "--", name]);
        command.current_dir(&folder);
        command
    };
    let run = |name: &str| Run::of(started(name).env_remove("PATH"));
    run("true").succeeds();
    assert_eq!(run(script.to_str().unwrap()).succeeds().stdout, "ran\n");
    run("own-script").fails(127, &["no such program"]);
    // An empty variable names the current folder, as in `execvp`.
    fs::write(&script, "#!/bin/sh\necho ran").unwrap();
    let run = |name: &str| Run::of(started(name).env("PATH", ""));
    run("true").fails(127, &["no such program"]);
    assert_eq!(run("own-script").succeeds().stdout, "ran\n");
}

/// Regression test: a program that was started with an ignored SIGPIPE got the default action.
#[test]
fn a_program_starts_with_the_signal_actions_that_the_command_got() {
    const SIGPIPE: u64 = 1 << (libc::SIGPIPE - 1);
    let shown = ["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"];
    let lines = |text: &str| -> Vec<_> {
        text.lines().filter(|line| line.starts_with("Sig")).map(str::to_owned).collect()
    };
    for (action, is_ignored) in [("trap '' PIPE", true), ("trap - PIPE", false)] {
        let start = |words: &[&str]| {
            let ours = obmalloc(words);
            let mut shell = clean_command("sh");
            shell.args(["-c", &format!("{action}; exec \"$@\""), "sh"]);
            shell.arg(ours.get_program()).args(ours.get_args());
            for (name, value) in ours.get_envs() {
                value.map(|value| shell.env(name, value));
            }
            Run::of(&mut shell)
        };
        let mut direct = clean_command("sh");
        direct.args(["-c", &format!("{action}; exec \"$@\""), "sh"]).args(shown);
        let expected = lines(&Run::of(&mut direct).succeeds().stdout);
        let ignored = expected.iter().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
        assert_eq!(ignored & SIGPIPE != 0, is_ignored, "{expected:?}");
        let run = start(&[&["run", "--"], &shown[..]].concat()).succeeds();
        assert_eq!(lines(&run.stdout), expected, "{action}");
        // The doctor prints the output of a command to stderr.
        let run = start(&[&["doctor", "--"], &shown[..]].concat());
        assert_eq!(lines(&run.stderr), expected, "{action}");
        let test = format!("grep -q '{}' /proc/self/status", expected[expected.len() - 1]);
        let run = start(&["compare", "--rounds", "1", "--on", "malloc", "--", "sh", "-c", &test]);
        assert_eq!(run.code, Some(0), "{action}: {run:?}");
    }
}

#[test]
fn the_program_keeps_the_process_its_exit_code_and_its_signal() {
    let mut child = obmalloc(["run", "--", "sh", "-c", "echo $$; read line; exit $line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    child.stdin.take().unwrap().write_all(b"7\n").unwrap();
    let run = Run::from(child.wait_with_output().unwrap());
    assert_eq!((run.stdout.trim(), run.code), (&*pid.to_string(), Some(7)));
    let status = obmalloc(["run", "--", "sh", "-c", "kill -TERM $$"]).status().unwrap();
    assert_eq!(status.signal(), Some(15));
}

#[test]
fn libraries_that_are_already_listed_stay_behind_ours() {
    let mut command = obmalloc(["run", "--", "sh", "-c", "echo $LD_PRELOAD"]);
    // `libdl.so.2` stands for any library. If it does not exist, the loader only prints a message.
    let run = Run::of(command.env("LD_PRELOAD", "libdl.so.2"));
    let ours = libdir().join("libobmalloc_cpython.so");
    assert_eq!(run.stdout.trim(), format!("{}:libdl.so.2", ours.display()));
    let (program, libdir) = (env!("CARGO_BIN_EXE_obmalloc"), libdir().display());
    let inner = format!("OBMALLOC_LIBDIR={libdir} {program} run -- sh -c 'echo $LD_PRELOAD'");
    let run = Run::of(&mut obmalloc(["run", "--", "sh", "-c", &inner])).succeeds();
    assert_eq!(run.stdout.matches("libobmalloc_cpython.so").count(), 1, "{run:?}");
}

#[test]
fn options_become_the_variables_of_the_library() {
    let words = ["run", "--quiet", "--stats", "--", "sh", "-c", "echo $OBMALLOC $OBMALLOC_STATS"];
    assert_eq!(Run::of(&mut obmalloc(words)).succeeds().stdout, "quiet 1\n");
    let words = ["run", "--strict", "--", "sh", "-c", "echo $OBMALLOC$OBMALLOC_PYTHON"];
    assert_eq!(Run::of(&mut obmalloc(words)).succeeds().stdout, "strict\n");
    let words = ["run", "--debug", "--limit", "64M", "--", "sh", "-c"];
    let mut command = obmalloc(words);
    let run = Run::of(command.arg("echo $OBMALLOC $OBMALLOC_LIMIT")).succeeds();
    assert_eq!(run.stdout, "debug 64M\n");
    let run = Run::of(&mut obmalloc(["run", "-v", "--", "true"]));
    assert!(run.stderr.contains("LD_PRELOAD=") && run.stderr.contains("true"), "{run:?}");
}

#[test]
fn a_program_that_reaches_its_limit_gets_a_memory_error() {
    let run = Run::of(&mut obmalloc(["run", "--limit", "64M", "-c", "bytes(100_000_000)"]));
    run.fails(1, &["MemoryError"]);
    Run::of(&mut obmalloc(["run", "--limit", "lots", "-c", ""])).fails(2, &["512K, 64M or 2G"]);
    Run::of(&mut obmalloc(["run", "--debug", "--quiet", "-c", ""])).fails(2, &["cannot be used"]);
}

#[test]
fn a_wrong_option_is_not_passed_to_the_program() {
    Run::of(&mut obmalloc(["run", "--stast", "prog.py"])).fails(2, &["--stats"]);
    Run::of(&mut obmalloc(["run"])).fails(2, &["no program is named"]);
}

/// `obmalloc run` never waits, so its cost is processor time: for its own start, and in Python for
/// the library and the status page. Other work on the machine hardly affects processor time.
#[test]
fn run_adds_at_most_5_milliseconds_to_python() {
    const PAIRS: usize = 40;
    let runtime = tempfile::tempdir().unwrap();
    let mut bare = clean_command(&python().executable);
    bare.args(["-c", "pass"]);
    let mut run = obmalloc(["run", "-c", "pass"]);
    run.env("XDG_RUNTIME_DIR", runtime.path());
    let [mut costs_bare, mut costs_run] = [(); 2].map(|()| Vec::new());
    for _ in 0..PAIRS {
        costs_bare.push(measure::run(&mut bare).unwrap().cost.cpu);
        costs_run.push(measure::run(&mut run).unwrap().cost.cpu);
    }
    costs_bare.sort_by(f64::total_cmp);
    costs_run.sort_by(f64::total_cmp);
    let (bare, run) = (costs_bare[PAIRS / 2], costs_run[PAIRS / 2]);
    println!("medians of {PAIRS} pairs: {bare:.4} s without run, {run:.4} s with it");
    assert!(run - bare <= 0.005, "{bare:.4} s, {run:.4} s");
}

/// Returns the path of the C compiler's runtime of AddressSanitizer, or `None` if it has none.
fn address_sanitizer() -> Option<String> {
    let name = "libasan.so";
    let run = Run::of(clean_command("cc").arg(format!("-print-file-name={name}")));
    let path = run.stdout.trim();
    (path != name && path.ends_with(name)).then(|| path.to_owned())
}

/// Regression test: AddressSanitizer ended the program at its start, because its runtime did not
/// come first.
#[test]
fn a_program_runs_on_the_heap_with_address_sanitizer() {
    let Some(runtime) = address_sanitizer() else {
        // The test harness would capture a line that `eprintln!` prints.
        writeln!(std::io::stderr(), "SKIPPED: the C compiler has no AddressSanitizer").unwrap();
        return;
    };
    let with_runtime = |words: &[&str]| {
        let mut command = obmalloc(words);
        command.env("LD_PRELOAD", &runtime).env("ASAN_OPTIONS", "detect_leaks=0");
        Run::of(&mut command).succeeds().stdout
    };
    assert_eq!(with_runtime(&["run", "-c", MAPPED]), "True\nTrue\n");
    let python = python().executable.to_str().unwrap();
    let script = format!("{}\nexec {python} -c \"$1\"", with_runtime(&["env"]));
    let mut shell = clean_command("sh");
    shell.args(["-c", &script, "sh", MAPPED]);
    shell.env("LD_PRELOAD", &runtime).env("ASAN_OPTIONS", "detect_leaks=0");
    assert_eq!(Run::of(&mut shell).succeeds().stdout, "True\nTrue\n");
}
