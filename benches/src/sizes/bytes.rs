//! Units of size.

pub(super) const KIB: usize = 1 << 10;

pub(super) const MIB: usize = 1 << 20;
