//! The settings that determine how memory is requested from the system and returned to it.

use std::fs;

use tempfile::TempDir;

use crate::support::{compile, preloaded, run};

/// Returns true if the system uses huge pages only for mappings that request them by `madvise`.
fn system_takes_advice() -> bool {
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    setting.is_ok_and(|setting| setting.contains("[madvise]"))
}

#[test]
fn blocks_are_in_huge_pages_if_the_user_asks_for_them_and_a_fork_harms_nobody() {
    let folder = TempDir::new().unwrap();
    let program = compile(folder.path(), "huge.c", &[]);
    for (setting, is_huge) in [("off", false), ("advise", true), ("explicit", true)] {
        let mut command = preloaded(&program);
        let run = run(command.env("OBMALLOC_HUGE_PAGES", setting));
        let kib: usize = run.is_clean().stdout.trim().parse().unwrap();
        if system_takes_advice() {
            assert_eq!(kib > 30_000, is_huge, "{setting}: {kib} KiB");
        }
    }
}

#[test]
fn unknown_values_of_the_settings_are_refused_with_the_known_ones() {
    for (setting, known) in [
        ("OBMALLOC_HUGE_PAGES", "off, advise, explicit"),
        ("OBMALLOC_TRIM_WHEN_SHORT", "0, false, no, off, 1, true, yes, on"),
    ] {
        let run = run(preloaded("true").env(setting, "maybe"));
        let expected = format!("obmalloc: {setting}: unknown value \"maybe\" (known: {known})\n");
        assert_eq!((run.status.success(), run.stderr), (true, expected));
    }
}
