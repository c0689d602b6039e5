//! Processes without CPython, such as the children of a Python script, which inherit the library.

use std::{fs, process::Command};

use tempfile::TempDir;

use crate::support::{command, compile, library, run};

#[test]
fn other_programs_run_as_without_the_library_and_write_no_statistics() {
    let folder = TempDir::new().unwrap();
    let source = folder.path().join("main.c");
    fs::write(&source, "int main(void) { return 3; }").unwrap();
    let source = source.to_str().unwrap();
    let programs: [(&str, &[&str]); 3] = [
        ("sh", &["-c", "echo out; echo err >&2; exit 7"]),
        ("git", &["--version"]),
        ("cc", &["-Wall", "-S", "-o", "-", source]),
    ];
    for (program, args) in programs {
        let alone = run(command(program).args(args));
        let stats = folder.path().join("stats-%p.json");
        let with = |command: &mut Command| {
            run(command.args(args).env("LD_PRELOAD", library()).env("OBMALLOC_STATS", &stats))
        };
        assert_eq!(alone, with(&mut command(program)));
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_program_does_not_find_our_error_message_in_the_loader() {
    let folder = TempDir::new().unwrap();
    let source = r#"
        #include <dlfcn.h>
        #include <stddef.h>
        int main(void) { return dlerror() != NULL; }
    "#;
    let program = compile(folder.path(), "dlerror", source, &["-ldl"]);
    run(command(program).env("LD_PRELOAD", library())).is_clean("a program without CPython");
}

#[test]
fn the_library_exports_only_its_own_names_and_needs_nothing_but_the_c_library() {
    let exports = run(Command::new("nm").args(["-D", "--defined-only"]).arg(library()));
    let lines = exports.is_clean("nm").stdout.lines();
    let names: Vec<_> = lines.filter_map(|line| line.split_whitespace().last()).collect();
    assert!(["obmalloc_stats_json", "obmalloc_trim"].iter().all(|name| names.contains(name)));
    // We replace these functions of the C library for reports at signals and at the end of a process.
    let replaced = ["_exit", "_Exit", "sigaction", "signal", "__sysv_signal"];
    let is_known = |name: &str| name.starts_with("obmalloc_") || replaced.contains(&name);
    assert!(names.iter().all(|name| is_known(name)), "{names:?}");
    let dynamic = run(Command::new("readelf").arg("-d").arg(library())).stdout;
    assert!(dynamic.contains("NODELETE"), "dlclose unloads the library: {dynamic}");
    let needs: Vec<_> = dynamic.lines().filter(|line| line.contains("(NEEDED)")).collect();
    assert!(needs.iter().all(|line| line.contains("[libc.so") || line.contains("[ld-linux")));
}
