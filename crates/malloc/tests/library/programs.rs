//! Programs that run with the library.

use std::{env, path::PathBuf};

use tempfile::TempDir;
use testkit::pythons::{self, clean_command};

use crate::support::{build, compile, library, preloaded, run};

#[test]
fn a_process_can_allocate_at_every_moment_of_its_life() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "lifecycle.c", &["-ldl"]);
    assert_eq!(run(&mut preloaded(&program)).is_clean().stdout, "done\n");
    let mut at_once = preloaded(&program);
    assert_eq!(run(at_once.env("LD_BIND_NOW", "1")).is_clean().stdout, "done\n");
}

#[test]
fn threads_can_exchange_blocks() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "exchange.c", &[]);
    assert_eq!(run(&mut preloaded(program)).is_clean().stdout, "done\n");
}

#[test]
fn a_process_that_runs_out_of_memory_can_free_it_and_go_on() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "limits.c", &[]);
    assert_eq!(run(&mut preloaded(program)).is_clean().stdout, "done\n");
}

#[test]
fn a_cancelled_thread_does_not_end_in_a_request() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "cancels.c", &[]);
    let place = folder.path().join("stats.json");
    let place = place.to_str().unwrap();
    for (settings, arguments, lines) in [
        (&[("OBMALLOC_TRIM_WHEN_SHORT", "1")][..], &[][..], 0),
        (&[("OBMALLOC_MALLOC_SOFT_LIMIT", "6M")], &[], 1),
        (
            &[("OBMALLOC_MALLOC_STATS", place), ("OBMALLOC_MALLOC_STATS_ON", "SIGUSR2")],
            &["SIGUSR2"],
            0,
        ),
        (&[("OBMALLOC", "debug")], &[], 0),
    ] {
        let mut command = preloaded(&program);
        let run = run(command.envs(settings.iter().copied()).args(arguments));
        assert_eq!(run.stdout, "1 1\ndone\n", "{settings:?} {run:?}");
        assert_eq!(run.stderr.lines().count(), lines, "{settings:?} {run:?}");
    }
}

/// By default, a process can have 65,530 mappings (Linux, `vm.max_map_count`).
#[test]
fn many_gaps_between_large_blocks_leave_mappings_for_threads_and_other_blocks() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "holes.c", &[]);
    for arguments in [&[][..], &["reversed"]] {
        let run = run(preloaded(&program).args(arguments));
        let words = run.is_clean().stdout.split_whitespace();
        let numbers: Vec<usize> = words.map(|word| word.parse().unwrap()).collect();
        let [1, 1, before, most, 1, 1, after] = numbers[..] else { panic!("{run:?}") };
        assert!(before < 20_000 && most < 20_000 && after < 1000, "{run:?}");
    }
}

#[test]
fn constructors_of_other_preloaded_libraries_can_allocate() {
    let folder = TempDir::new().unwrap();
    let early = compile(folder.path(), "early.c", &["-shared", "-fPIC"]);
    let (ours, other) = (library().display(), early.display());
    for libraries in [format!("{ours} {other}"), format!("{other} {ours}")] {
        let mut command = clean_command("true");
        let run = run(command.env("LD_PRELOAD", libraries));
        assert_eq!(run.is_clean().stdout, "kept since a constructor\n");
    }
}

#[test]
fn handlers_that_run_before_a_fork_can_allocate_however_early_they_were_registered() {
    let folder = TempDir::new().unwrap();
    let library = compile(folder.path(), "prepares.c", &["-shared", "-fPIC"]);
    let program = compile(folder.path(), "forks.c", &[library.to_str().unwrap()]);
    for mode in ["", "debug"] {
        let mut command = preloaded(&program);
        assert_eq!(run(command.env("OBMALLOC", mode)).is_clean().stdout, "done\n", "{mode}");
    }
}

#[test]
fn the_library_adds_no_output_and_no_exit_code() {
    let programs: [(&str, &[&str]); 3] = [
        ("sh", &["-c", "echo out; echo err >&2; exit 7"]),
        ("ls", &["-l", env!("CARGO_MANIFEST_DIR")]),
        ("sort", &["--parallel=2", concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")]),
    ];
    for (program, arguments) in programs {
        let alone = run(clean_command(program).args(arguments));
        assert_eq!(run(preloaded(program).args(arguments)), alone);
    }
}

#[test]
fn memory_that_is_not_ours_ends_the_process_with_a_message() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "foreign.c", &[]);
    let run = run(&mut preloaded(program));
    assert!(!run.status.success(), "{run:?}");
    assert!(run.stderr.starts_with("obmalloc: cannot free the memory at 0x"), "{run:?}");
}

#[test]
fn a_program_that_replaces_malloc_stays_in_charge_of_its_blocks() {
    let folder = TempDir::new().unwrap();
    for flags in [&[][..], &["-DPVALLOC"], &["-DWRAPS"], &["-DWRAPS", "-DHEADER=0"]] {
        let program = compile(folder.path(), "replaces_malloc.c", flags);
        assert_eq!(run(&mut clean_command(&program)).is_clean().stdout, "done\n", "{flags:?}");
        assert_eq!(run(&mut preloaded(&program)).is_clean().stdout, "done\n", "{flags:?}");
    }
}

#[test]
fn the_library_for_cpython_works_in_the_same_process() {
    let cpython: PathBuf = match env::var_os("OBMALLOC_LIB") {
        Some(library) => library.into(),
        None => build("obmalloc-cpython", "libobmalloc_cpython.so"),
    };
    let code = "import threading, json\n\
                def work(): return json.dumps([{str(i): [i] * 100} for i in range(3000)])\n\
                threads = [threading.Thread(target=work) for _ in range(4)]\n\
                [thread.start() for thread in threads]\n\
                [thread.join() for thread in threads]\n\
                print(len(work()))";
    let (ours, other) = (library().display(), cpython.display());
    let orders = [format!("{ours} {other}"), format!("{other} {ours}")];
    let mut count = 0;
    for python in pythons::find().iter().filter(|python| python.is_supported()) {
        let alone = run(clean_command(&python.executable).args(["-c", code]));
        for libraries in &orders {
            let mut command = clean_command(&python.executable);
            command.args(["-c", code]).env("LD_PRELOAD", libraries);
            assert_eq!(run(&mut command), alone, "{} {libraries}", python.name());
        }
        let mut command = clean_command(&python.executable);
        command.args(["-c", "pass"]).env("LD_PRELOAD", &orders[0]);
        let stats =
            run(command.env("OBMALLOC_STATS", "1").env("OBMALLOC_MALLOC_STATS", "1")).stderr;
        let both = ["obj: obmalloc", ", as malloc\n"].iter().all(|line| stats.contains(line));
        assert!(both, "{}: {stats}", python.name());
        count += 1;
    }
    assert!(count > 0, "no CPython was found");
}
