//! `operator new` and `operator delete`.

use std::os::unix::process::ExitStatusExt;

use tempfile::TempDir;
use testkit::pythons::clean_command;

use crate::support::{compile, preloaded, run};

#[test]
fn every_form_of_new_and_delete_works_and_failures_throw() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "operators.cpp", &[]);
    assert_eq!(run(&mut preloaded(program)).is_clean().stdout, "done\n");
}

#[test]
fn every_form_works_beside_a_runtime_that_is_linked_statically() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "operators.cpp", &["-static-libstdc++", "-static-libgcc"]);
    assert_eq!(run(&mut preloaded(program)).is_clean().stdout, "done\n");
}

/// Without a replacement for its own form, a form calls the one from which the standard derives it.
#[test]
fn a_form_calls_what_the_program_has_put_in_place_of_the_form_that_it_derives_from() {
    let folder = TempDir::new().unwrap();
    for flags in [
        &[][..],
        &["-DREPLACES_ARRAY"],
        &["-DREPLACES_ALIGNED"],
        &["-DREPLACES_ARRAY", "-DREPLACES_ALIGNED"],
    ] {
        let program = compile(folder.path(), "replaces.cpp", flags);
        assert_eq!(run(&mut clean_command(&program)).is_clean().stdout, "done\n", "{flags:?}");
        assert_eq!(run(&mut preloaded(&program)).is_clean().stdout, "done\n", "{flags:?}");
    }
}

#[test]
fn replaced_forms_are_called_without_a_runtime_too() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "replaces_in_c.c", &["-rdynamic"]);
    assert_eq!(run(&mut preloaded(program)).is_clean().stdout, "3 3\n");
}

#[test]
fn failures_throw_in_a_library_that_is_loaded_late_and_for_itself_alone() {
    let folder = TempDir::new().unwrap();
    let plugin = compile(folder.path(), "plugin.cpp", &["-shared", "-fPIC"]);
    let program = compile(folder.path(), "loads.c", &["-ldl"]);
    assert_eq!(run(preloaded(program).arg(plugin)).is_clean().stdout, "4\n");
}

#[test]
fn without_a_runtime_a_failure_ends_the_process_with_a_message() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "without_runtime.c", &[]);
    let run = run(&mut preloaded(program));
    assert_eq!((&*run.stdout, run.status.signal()), ("(nil)\n", Some(libc::SIGABRT)));
    let message = "obmalloc: operator new cannot allocate 4611686018427387904 bytes: out of memory";
    assert!(run.stderr.starts_with(message), "{run:?}");
}
