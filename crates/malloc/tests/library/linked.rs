//! Programs that link to the library, and the files that they need.

use std::{fs, path::Path};

use tempfile::TempDir;
use testkit::pythons::clean_command;

use crate::support::{compile, library, run};

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

/// Compiles `source`, links the program to the library, and runs it. Returns the program's output.
fn output_of(source: &str) -> String {
    let folder = TempDir::new().unwrap();
    fs::copy(library(), folder.path().join("libobmalloc.so")).unwrap();
    let place = folder.path().display();
    let flags = [
        format!("-I{FOLDER}/include"),
        format!("-L{place}"),
        format!("-Wl,--no-as-needed,-rpath,{place}"),
        "-lobmalloc".to_owned(),
        "-Wextra".to_owned(),
        "-pedantic".to_owned(),
    ];
    let program = compile(folder.path(), source, &flags.each_ref().map(String::as_str));
    run(&mut clean_command(program)).is_clean().stdout.clone()
}

#[test]
fn programs_in_c_and_cpp_can_include_the_header_and_link_to_the_library() {
    for source in ["linked.c", "linked.cpp"] {
        assert_eq!(output_of(source), concat!(env!("CARGO_PKG_VERSION"), "\n"), "{source}");
    }
}

#[test]
fn figures_count_exactly_what_all_threads_have_in_use() {
    assert_eq!(output_of("figures.c"), "done\n");
}

#[test]
fn a_thread_with_the_smallest_stack_can_ask_for_figures() {
    assert_eq!(output_of("small_stack.c"), "done\n");
}

#[test]
fn the_file_for_pkg_config_has_the_version_of_the_library() {
    let text = fs::read_to_string(Path::new(FOLDER).join("obmalloc.pc")).unwrap();
    let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
    assert_eq!(version, Some(env!("CARGO_PKG_VERSION")));
}
