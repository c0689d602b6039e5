//! The version of a CPython, as read from the text of `Py_GetVersion()`.

#![forbid(unsafe_code)]

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    major: u8,
    minor: u8,
    /// True for a build without a GIL. CPython: `Py_GIL_DISABLED`.
    pub(crate) free_threaded: bool,
}

/// The oldest and the newest version on which this library was tested.
pub(crate) const OLDEST: Version = Version::new(3, 8);
pub(crate) const NEWEST: Version = Version::new(3, 15);

impl Version {
    const fn new(major: u8, minor: u8) -> Self {
        Self { major, minor, free_threaded: false }
    }

    /// Parses a text such as `3.13.0 experimental free-threading build (main, …) [GCC 12.2.0]`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        // The parentheses enclose the name of the build, which may be any text.
        let before_build = text.split('(').next()?;
        Some(Self { major, minor, free_threaded: before_build.contains("free-threading") })
    }

    /// Returns true if this version is newer than [`NEWEST`].
    pub(crate) fn is_newer(self) -> bool {
        self.pair() > NEWEST.pair()
    }

    pub(crate) fn pair(self) -> (u8, u8) {
        (self.major, self.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<((u8, u8), bool)> {
        Version::parse(text).map(|version| (version.pair(), version.free_threaded))
    }

    #[test]
    fn a_version_is_read_from_the_text_of_cpython() {
        let debian = "3.11.2 (main, Mar 13 2023, 12:18:29) [GCC 12.2.0]";
        assert_eq!(parse(debian), Some(((3, 11), false)));
        assert_eq!(parse("3.15.0a1+ (heads/main:1234, …) [GCC]"), Some(((3, 15), false)));
    }

    #[test]
    fn a_free_threaded_build_is_recognised_by_the_text_before_its_name() {
        let first = "3.13.0 experimental free-threading build (main, Oct 16 2024) [GCC 13.2.0]";
        assert_eq!(parse(first), Some(((3, 13), true)));
        let later = "3.14.0 free-threading build (main, Oct 7 2025) [GCC 13.2.0]";
        assert_eq!(parse(later), Some(((3, 14), true)));
        assert_eq!(parse("3.13.0 (free-threading-fix, …) [GCC]"), Some(((3, 13), false)));
    }

    #[test]
    fn a_text_without_a_version_is_not_parsed() {
        assert_eq!(parse("?"), None);
        assert_eq!(parse("three.eleven"), None);
    }
}
