//! Used in builds in which the linker does not group the code.

#![forbid(unsafe_code)]

/// Does nothing.
pub(crate) fn release() {}
