//! Functions with which tests look at the mappings of their process.

use std::{fs, vec::Vec};

/// One line of `/proc/self/maps`.
pub(crate) struct Mapping {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// The permissions, such as `rw-p`.
    pub(crate) permissions: std::string::String,
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
pub(crate) fn permissions_at(address: usize) -> Option<std::string::String> {
    let mut mappings = mappings().into_iter();
    Some(mappings.find(|mapping| (mapping.start..mapping.end).contains(&address))?.permissions)
}

/// Asserts that one of ten calls of `unmaps` returns true.
///
/// `unmaps` gives memory back and returns whether its addresses are unmapped afterwards. One call
/// proves nothing when it returns false: the tests of a process run side by side, and another one
/// may have mapped its own memory at these addresses since.
pub(crate) fn assert_unmaps(unmaps: impl FnMut() -> bool) {
    let mut tries = core::iter::repeat_with(unmaps).take(10);
    assert!(tries.any(|is_unmapped| is_unmapped), "the memory is still mapped");
}
