//! Used where the linker does not group the code by when it runs.

#![forbid(unsafe_code)]

/// Does nothing.
pub(crate) fn release() {}
