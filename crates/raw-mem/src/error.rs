//! The errors of arena sources.

#![forbid(unsafe_code)]

use core::fmt;

use crate::arena_size::ArenaSize;

/// The reason why an arena or a large block could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The operating system refused the mapping.
    #[error("cannot map an arena of {size}: {code}")]
    Os {
        /// The size of the requested arena.
        size: ArenaSize,
        /// The error that the system returned.
        code: OsCode,
    },
    /// The source has no arena of this size left.
    #[error("cannot map an arena of {size}: none is left in this source")]
    Exhausted {
        /// The size of the requested arena.
        size: ArenaSize,
    },
    /// The operating system refused memory for a large block.
    #[error("cannot map a large block of {bytes} bytes: {code}")]
    LargeOs {
        /// The requested size.
        bytes: usize,
        /// The error that the system returned.
        code: OsCode,
    },
    /// The source has no memory for a large block of this size.
    #[error("cannot map a large block of {bytes} bytes: none is left in this source")]
    LargeExhausted {
        /// The requested size.
        bytes: usize,
    },
}

/// The reason why pages could not be purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PurgeError {
    /// The source or the platform cannot purge.
    #[error("this source of arenas cannot purge")]
    Unsupported,
    /// The operating system refused to purge the pages.
    #[error("cannot purge {len} bytes at {start:#x}: {code}")]
    Os {
        /// The address of the first page.
        start: usize,
        /// The length of the range, in bytes.
        len: usize,
        /// The error that the system returned.
        code: OsCode,
    },
}

/// An error number of the operating system (`errno`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OsCode(pub i32);

#[cfg(feature = "std")]
impl fmt::Display for OsCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&std::io::Error::from_raw_os_error(self.0), f)
    }
}

#[cfg(not(feature = "std"))]
impl fmt::Display for OsCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "os error {}", self.0)
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_request_and_the_answer_of_the_system() {
        let size = ArenaSize::new(1 << 20).unwrap();
        let error = MapError::Os { size, code: OsCode(12) };
        let text = error.to_string();
        assert!(text.contains("1048576 bytes"), "{text}");
        assert!(text.contains("Cannot allocate memory"), "{text}");
    }
}
