//! Which of CPython's test files are compared, and which of their tests may differ.

use std::time::Duration;

/// A test file, or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) name: &'static str,
    /// Only the tests that match one of these patterns, if there are any.
    pub(super) matching: &'static [&'static str],
    pub(super) part: Part,
}

/// Whether a file is in the part that fits into five minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// On every Python.
    Everywhere,
    /// On one Python, another one for each of these files: it takes longer.
    Somewhere,
    /// On none: it takes minutes.
    Nowhere,
}

impl Part {
    /// A file that takes longer has hung, be the machine ever so busy.
    pub(super) const fn patience(self) -> Duration {
        let minutes = match self {
            Self::Everywhere => 10,
            Self::Somewhere => 20,
            Self::Nowhere => 30,
        };
        Duration::from_secs(minutes * 60)
    }
}

const fn file(part: Part, name: &'static str) -> File {
    File { name, matching: &[], part }
}

const fn quick(name: &'static str) -> File {
    file(Part::Everywhere, name)
}

const fn slow(name: &'static str) -> File {
    file(Part::Somewhere, name)
}

const fn long(name: &'static str) -> File {
    file(Part::Nowhere, name)
}

/// Every file that is compared, the longest first, so that none is left to the end alone. A Python
/// has those that it ships: some have another name, or are not there yet, in other versions.
pub(super) const ALL: &[File] = &[
    long("test_multiprocessing_spawn"),
    long("test_concurrent_futures"),
    long("test_asyncio"),
    long("test_multiprocessing_fork"),
    slow("test_subprocess"),
    slow("test_threading"),
    long("test_interpreters"),
    long("test__interpreters"),
    long("test__xxsubinterpreters"),
    slow("test_weakref"),
    slow("test_pickle"),
    slow("test_os"),
    slow("test_cmd_line"),
    quick("test_set"),
    quick("test_json"),
    quick("test_bytes"),
    quick("test_long"),
    quick("test_gc"),
    quick("test_sys"),
    quick("test_tracemalloc"),
    quick("test_unicode"),
    quick("test_str"),
    quick("test_descr"),
    quick("test_int"),
    quick("test_tuple"),
    quick("test_re"),
    quick("test_list"),
    quick("test_dict"),
    quick("test_float"),
    quick("test_generators"),
    quick("test_class"),
    File {
        name: "test_capi",
        matching: &["*PyMem*", "*test_pymem*", "*test_pyobject*", "*test_set_nomemory*"],
        part: Part::Everywhere,
    },
];

/// How the library may change the outcome of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// It may fail, if the heading of each failure has these words.
    Fails(&'static str),
    /// It may be skipped.
    IsSkipped,
}

/// The tests that the library may change: the file, the name, and how.
const PERMITTED: [(&str, &str, Change); 4] = [
    // They ask CPython for its own allocator's counters or name.
    ("test_sys", "test_getallocatedblocks", Change::Fails("")),
    ("test_sys", "test_debugmallocstats", Change::Fails("")),
    ("test_cmd_line", "test_pythonmalloc", Change::Fails("(env_var=None, ")),
    // It is skipped wherever strace is installed and LD_PRELOAD is set.
    ("test_subprocess", "test_vfork_used_when_expected", Change::IsSkipped),
];

/// Returns true if the library may change the outcome of this test, which printed failures under
/// these headings.
pub(super) fn may_differ<'a>(test: &str, mut headings: impl Iterator<Item = &'a str>) -> bool {
    let parts: Vec<_> = test.split('.').collect();
    let permitted =
        PERMITTED.iter().find(|(file, name, _)| parts.contains(file) && parts.last() == Some(name));
    permitted.is_some_and(|(.., change)| match change {
        Change::Fails(words) => headings.all(|heading| heading.contains(words)),
        Change::IsSkipped => headings.next().is_none(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_of_cpythons_own_counters_and_names_may_differ() {
        let may_differ = |test| may_differ(test, std::iter::empty());
        assert!(may_differ("test.test_sys.SizeofTest.test_getallocatedblocks"));
        assert!(may_differ("test.test_sys.SysModuleTest.test_debugmallocstats"));
        assert!(may_differ("test.test_cmd_line.CmdLineTest.test_pythonmalloc"));
        assert!(!may_differ("test.test_sys.SysModuleTest.test_exit"));
        assert!(!may_differ("test.test_list.ListTest.test_debugmallocstats"));
        assert!(!may_differ("test_sys as a whole"));
    }

    #[test]
    fn the_allocators_name_may_differ_only_where_no_variable_chooses_it() {
        let test = "test.test_cmd_line.CmdLineTest.test_pythonmalloc";
        let none = "FAIL: test_pythonmalloc (a.B) (env_var=None, name='pymalloc')";
        let debug = "FAIL: test_pythonmalloc (a.B) (env_var='debug', name='pymalloc_debug')";
        assert!(may_differ(test, [none].into_iter()));
        assert!(!may_differ(test, [none, debug].into_iter()));
    }

    #[test]
    fn a_test_that_may_be_skipped_may_not_fail() {
        let test = "test.test_subprocess.POSIXProcessTestCase.test_vfork_used_when_expected";
        assert!(may_differ(test, std::iter::empty()));
        assert!(!may_differ(test, ["FAIL: test_vfork_used_when_expected (a.B)"].into_iter()));
    }

    #[test]
    fn a_file_is_named_once() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|file| file.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
