//! What is known about the contents of memory.

#![forbid(unsafe_code)]

/// What is known about the contents of memory that a source has mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Every byte is zero.
    Zero,
    /// The memory may contain anything.
    Unknown,
}
