//! The test files of CPython that are compared, and the tests that may differ with our library.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) name: &'static str,
    pub(super) part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Everywhere,
    /// The file runs on only one Python, because it takes longer.
    Somewhere,
    /// The file does not run, because it takes minutes.
    Nowhere,
}

/// The files that are compared, the longest first so that parallel jobs end together.
const FILES: [(Part, &str); 3] = [
    (
        Part::Nowhere,
        "test_multiprocessing_spawn test_concurrent_futures test_asyncio \
         test_multiprocessing_fork test_interpreters test__interpreters \
         test__xxsubinterpreters",
    ),
    (
        Part::Somewhere,
        "test_subprocess test_threading test_weakref test_pickle test_os test_cmd_line",
    ),
    (
        Part::Everywhere,
        "test_set test_json test_bytes test_long test_gc test_sys test_tracemalloc \
         test_unicode test_str test_descr test_int test_tuple test_re test_list test_dict \
         test_float test_generators test_class test_capi test_embed",
    ),
];

pub(super) fn all() -> impl Iterator<Item = File> {
    let file = |part| move |name| File { name, part };
    FILES.into_iter().flat_map(move |(part, names)| names.split_whitespace().map(file(part)))
}

impl File {
    /// Returns patterns of the tests to run, or none if all tests run.
    pub(super) fn patterns(self) -> &'static [&'static str] {
        match self.name {
            "test_capi" => &["*PyMem*", "*test_pymem*", "*test_pyobject*", "*test_set_nomemory*"],
            _ => &[],
        }
    }

    /// Returns the time after which the file counts as hanging, even on a busy machine.
    pub(super) fn longest(self) -> Duration {
        let minutes = match self.part {
            Part::Everywhere => 10,
            Part::Somewhere => 20,
            Part::Nowhere => 30,
        };
        Duration::from_secs(minutes * 60)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The test may fail if the heading of each failure contains one of these texts.
    Fails(&'static [&'static str]),
    IsSkipped,
}

/// The tests whose outcome our library may change: the file, the name, and the change.
const PERMITTED: [(&str, &str, Change); 5] = [
    // These tests ask for the counters or the name of CPython's own allocator.
    ("test_sys", "test_getallocatedblocks", Change::Fails(&[""])),
    ("test_sys", "test_debugmallocstats", Change::Fails(&[""])),
    ("test_cmd_line", "test_pythonmalloc", Change::Fails(&HEAP_NAMES)),
    // The last part of this test asks for the name of CPython's debug hooks.
    ("test_cmd_line", "test_xdev", Change::Fails(&[""])),
    // Skipped if strace is installed and LD_PRELOAD is set.
    ("test_subprocess", "test_vfork_used_when_expected", Change::IsSkipped),
];

/// The parts of `test_pythonmalloc` in which our heap takes the place of CPython's allocator.
const HEAP_NAMES: [&str; 5] = [
    "(env_var=None, ",
    "(env_var='default', ",
    "(env_var='debug', ",
    "(env_var='pymalloc', ",
    "(env_var='pymalloc_debug', ",
];

/// Returns true if our library may change the outcome of `test`, given its failure headings.
pub(super) fn may_differ<'a>(test: &str, mut headings: impl Iterator<Item = &'a str>) -> bool {
    let parts: Vec<_> = test.split('.').collect();
    let permitted =
        PERMITTED.iter().find(|(file, name, _)| parts.contains(file) && parts.last() == Some(name));
    permitted.is_some_and(|(.., change)| match change {
        Change::Fails(texts) => {
            headings.all(|heading| texts.iter().any(|text| heading.contains(text)))
        }
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
    fn the_allocators_name_may_differ_only_where_the_heap_serves() {
        let test = "test.test_cmd_line.CmdLineTest.test_pythonmalloc";
        let none = "FAIL: test_pythonmalloc (a.B) (env_var=None, name='pymalloc')";
        let debug = "FAIL: test_pythonmalloc (a.B) (env_var='debug', name='pymalloc_debug')";
        let malloc = "FAIL: test_pythonmalloc (a.B) (env_var='malloc', name='malloc')";
        assert!(may_differ(test, [none, debug].into_iter()));
        assert!(!may_differ(test, [none, malloc].into_iter()));
    }

    #[test]
    fn a_test_that_may_be_skipped_may_not_fail() {
        let test = "test.test_subprocess.POSIXProcessTestCase.test_vfork_used_when_expected";
        assert!(may_differ(test, std::iter::empty()));
        assert!(!may_differ(test, ["FAIL: test_vfork_used_when_expected (a.B)"].into_iter()));
    }

    #[test]
    fn each_file_is_listed_once() {
        let names: std::collections::BTreeSet<_> = all().map(|file| file.name).collect();
        assert_eq!(names.len(), all().count());
    }
}
