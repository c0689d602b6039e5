//! Functions with which tests look at the mappings of their process.

use std::{borrow::ToOwned, env, fs, process::Command, string::String, vec::Vec};

/// One line of `/proc/self/maps`.
pub(crate) struct Mapping {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// The permissions, such as `rw-p`.
    pub(crate) permissions: String,
}

/// Returns the mappings of the process, in order of their addresses.
pub(crate) fn mappings() -> Vec<Mapping> {
    let line = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let permissions = rest.split(' ').next()?.to_owned();
        Some(Mapping { start: address(start)?, end: address(end)?, permissions })
    };
    fs::read_to_string("/proc/self/maps").unwrap().lines().filter_map(line).collect()
}

/// Returns the permissions of the mapping that contains `address`, or `None` if nothing is mapped
/// there.
pub(crate) fn permissions_at(address: usize) -> Option<String> {
    let mut mappings = mappings().into_iter();
    Some(mappings.find(|mapping| (mapping.start..mapping.end).contains(&address))?.permissions)
}

/// Set in a process that runs only one test.
const IS_ALONE: &str = "RAW_MEM_ALONE";

/// Runs `test`, which must be the body of the test `name`, while no other test of this process
/// runs.
///
/// Tests usually run side by side in one process, so another test may map memory at an address that
/// `test` has just unmapped. `alone` therefore starts a second process that runs only the test
/// `name`. In the second process, the same test calls `alone` again, which then runs `test`.
pub(crate) fn alone(name: &str, test: impl FnOnce()) {
    if env::var_os(IS_ALONE).is_some() {
        return test();
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--test-threads", "1"]).env(IS_ALONE, "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
