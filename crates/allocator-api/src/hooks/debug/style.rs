//! The filling bytes and the block layout of a version of CPython.

#![forbid(unsafe_code)]

/// The size of the fields around a block, in bytes.
pub(super) const WORD: usize = size_of::<usize>();

/// The bytes that [`Debug`](super::Debug) writes, and whether blocks have serial numbers.
///
/// Source: CPython's `Include/internal/pycore_pymem.h` and `Objects/obmalloc.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    pub(super) clean: u8,
    pub(super) dead: u8,
    pub(super) forbidden: u8,
    pub(super) has_serials: bool,
}

impl Style {
    /// CPython 3.8 and later.
    pub const CPYTHON_3_8: Self =
        Self { clean: 0xCD, dead: 0xDD, forbidden: 0xFD, has_serials: false };

    /// Late versions of CPython 3.7, which number each block.
    pub const CPYTHON_3_7: Self = Self::CPYTHON_3_8.with_serials();

    /// CPython 2 and CPython up to 3.6, which number each block.
    pub const CPYTHON_2: Self =
        Self { clean: 0xCB, dead: 0xDB, forbidden: 0xFB, has_serials: true };

    /// Adds a serial number to each block. CPython: `PYMEM_DEBUG_SERIALNO`.
    ///
    /// All hooks of the process share one counter, so the number shows in which order blocks were
    /// allocated.
    #[must_use]
    pub const fn with_serials(self) -> Self {
        Self { has_serials: true, ..self }
    }

    /// Returns the number of bytes after a block.
    pub(super) const fn trailer(self) -> usize {
        if self.has_serials { 2 * WORD } else { WORD }
    }

    /// Returns the number of bytes before and after a block.
    pub(super) const fn overhead(self) -> usize {
        2 * WORD + self.trailer()
    }
}

impl Default for Style {
    fn default() -> Self {
        Self::CPYTHON_3_8
    }
}
