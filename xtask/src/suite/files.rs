//! Which of CPython's test files are compared, and which of their tests may differ.

use anyhow::{Context, Result};
use testkit::pythons::{self, Python};

/// A test file, or a part of one.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: &'static str,
    /// Only the tests that match one of these patterns, if there are any.
    pub(crate) matching: &'static [&'static str],
    /// It takes a few seconds.
    pub(crate) quick: bool,
}

const fn quick(name: &'static str) -> File {
    File { name, matching: &[], quick: true }
}

const fn slow(name: &'static str) -> File {
    File { name, matching: &[], quick: false }
}

/// Every file that is compared. A Python has those that it ships: some have another name, or are
/// not there yet, in other versions.
pub(crate) const ALL: &[File] = &[
    quick("test_list"),
    quick("test_dict"),
    quick("test_tuple"),
    quick("test_int"),
    quick("test_float"),
    quick("test_generators"),
    quick("test_class"),
    quick("test_json"),
    quick("test_gc"),
    File {
        name: "test_capi",
        matching: &["*PyMem*", "*test_pymem*", "*test_pyobject*", "*test_set_nomemory*"],
        quick: true,
    },
    slow("test_set"),
    slow("test_unicode"),
    slow("test_str"),
    slow("test_bytes"),
    slow("test_long"),
    slow("test_weakref"),
    slow("test_descr"),
    slow("test_pickle"),
    slow("test_re"),
    slow("test_threading"),
    slow("test_subprocess"),
    slow("test_multiprocessing_fork"),
    slow("test_multiprocessing_spawn"),
    slow("test_concurrent_futures"),
    slow("test_asyncio"),
    slow("test_interpreters"),
    slow("test__xxsubinterpreters"),
    slow("test__interpreters"),
    slow("test_os"),
    slow("test_sys"),
    slow("test_tracemalloc"),
    slow("test_cmd_line"),
];

/// The tests that ask CPython for its own allocator's name or counters.
const PERMITTED: &[&str] =
    &["test_getallocatedblocks", "test_debugmallocstats", "test_pythonmalloc"];

/// The library may change the outcome of the test of this name.
pub(crate) fn may_differ(test: &str) -> bool {
    let of_file = test.contains("test_sys.") || test.contains("test_cmd_line.");
    of_file && PERMITTED.iter().any(|name| test.rsplit('.').next() == Some(name))
}

/// The Python has the file.
pub(crate) fn is_shipped(python: &Python, file: &File) -> Result<bool> {
    let question =
        format!("import importlib.util as u; print(u.find_spec('test.{}') is not None)", file.name);
    let output = pythons::clean_command(&python.executable).args(["-c", &question]).output();
    let output = output.with_context(|| python.name())?;
    Ok(output.stdout.starts_with(b"True"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_of_cpythons_own_counters_and_names_may_differ() {
        assert!(may_differ("test.test_sys.SizeofTest.test_getallocatedblocks"));
        assert!(may_differ("test.test_cmd_line.CmdLineTest.test_pythonmalloc"));
        assert!(!may_differ("test.test_sys.SysModuleTest.test_exit"));
        assert!(!may_differ("test.test_list.ListTest.test_debugmallocstats"));
    }
}
