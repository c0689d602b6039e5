//! What was asked, and what the operating system answered.

use core::fmt;

use crate::{Advice, ArenaSize};

/// Why an arena could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The operating system refused the mapping.
    #[error("cannot map an arena of {size}: {code}")]
    Os {
        /// The arena asked for.
        size: ArenaSize,
        /// The system's answer.
        code: OsCode,
    },
    /// The source has a fixed amount of memory, and what is left holds no such arena.
    #[error("no arena of {size} is left in this source")]
    Exhausted {
        /// The arena asked for.
        size: ArenaSize,
    },
}

/// Why a piece of advice was not taken. Advice is optional: memory is as usable as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdviseError {
    /// The source or the platform has no such advice.
    #[error("{advice:?} is not supported here")]
    Unsupported {
        /// The advice given.
        advice: Advice,
    },
    /// The operating system refused.
    #[error("cannot advise {advice:?} on {len} bytes at {start:#x}: {code}")]
    Os {
        /// The advice given.
        advice: Advice,
        /// First address of the range.
        start: usize,
        /// Bytes of the range.
        len: usize,
        /// The system's answer.
        code: OsCode,
    },
}

/// An error number of the operating system (`errno`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OsCode(pub i32);

impl fmt::Display for OsCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "std")]
        return fmt::Display::fmt(&std::io::Error::from_raw_os_error(self.0), f);
        #[cfg(not(feature = "std"))]
        write!(f, "os error {}", self.0)
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_was_asked_and_what_the_system_answered() {
        let size = ArenaSize::new(1 << 20).unwrap();
        let error = MapError::Os { size, code: OsCode(12) };
        let text = error.to_string();
        assert!(text.contains("1048576 bytes"), "{text}");
        assert!(text.contains("Cannot allocate memory"), "{text}");
    }
}
