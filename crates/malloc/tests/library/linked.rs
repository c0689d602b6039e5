//! Programs that link to the library, and the files that they need.

use std::{fs, path::Path};

use tempfile::TempDir;
use testkit::pythons::clean_command;

use crate::support::{compile, library, run};

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn programs_in_c_and_cpp_can_include_the_header_and_link_to_the_library() {
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
    let flags = flags.each_ref().map(String::as_str);
    for source in ["linked.c", "linked.cpp"] {
        let program = compile(folder.path(), source, &flags);
        let run = run(&mut clean_command(program));
        assert_eq!(run.is_clean().stdout, concat!(env!("CARGO_PKG_VERSION"), "\n"), "{source}");
    }
}

#[test]
fn the_file_for_pkg_config_has_the_version_of_the_library() {
    let text = fs::read_to_string(Path::new(FOLDER).join("obmalloc.pc")).unwrap();
    let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
    assert_eq!(version, Some(env!("CARGO_PKG_VERSION")));
}
