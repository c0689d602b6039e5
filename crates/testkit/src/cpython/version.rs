//! Which CPython it is, and so by which rules its heap goes.

use std::fmt;

use crate::reference::Rules;

/// The version of a CPython.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 3.
    pub major: u32,
    /// As 13 in 3.13.0.
    pub minor: u32,
    /// As 0 in 3.13.0.
    pub patch: u32,
}

impl Version {
    /// The version at the start of what `Py_GetVersion` answers.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = |part: &str| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse().ok()
        };
        let mut parts = text.split_whitespace().next()?.splitn(3, '.').map(digits);
        Some(Self { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? })
    }

    /// The rules of this version's heap; `None` for a version whose rules are not known.
    pub fn rules(self) -> Option<Rules> {
        match (self.major, self.minor, self.patch) {
            (3, 7, 0..=3) => Some(Rules::CLASSES_8_TO_512),
            (3, 7 | 8, _) => Some(Rules::POOLS_4K_GIVE_BACK_ALL),
            (3, 9, _) => Some(Rules::POOLS_4K),
            (3, 10..=15, _) => Some(Rules::POOLS_16K),
            _ => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_cpython_says_of_itself() {
        let version = |text| Version::parse(text).map(|version| version.to_string());
        assert_eq!(version("3.13.0 (main, Oct  7 2024) [GCC 12.2.0]").unwrap(), "3.13.0");
        assert_eq!(version("3.14.0rc2 (main)").unwrap(), "3.14.0");
        assert_eq!(version("PyPy"), None);
    }

    #[test]
    fn a_version_whose_rules_nobody_has_checked_has_none() {
        let rules = |minor| Version { major: 3, minor, patch: 9 }.rules();
        assert_eq!(rules(6), None);
        assert_eq!(rules(8), Some(Rules::POOLS_4K_GIVE_BACK_ALL));
        assert_eq!(rules(15), Some(Rules::POOLS_16K));
        assert_eq!(rules(16), None);
    }
}
