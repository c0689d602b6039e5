//! The setting for huge pages.

#![forbid(unsafe_code)]

/// The size of a huge page in bytes, on systems with pages of 4 KiB.
///
/// If the system's huge pages have another size, it still uses them, but we may return only parts
/// of a huge page.
pub const HUGE_PAGE: usize = 2 << 20;

/// Whether a [source](crate::ArenaSource) uses huge pages.
///
/// A huge page needs one page fault instead of 512, and access to its memory is faster. However,
/// all of it stays in memory as long as any part of it is in use, and it may be larger than an
/// arena.
///
/// We never use the reserved pool of huge pages (`MAP_HUGETLB`). After a fork, the kernel copies
/// pages of this kind into other pages of the same pool, and kills the child if the pool is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// The system decides.
    #[default]
    Off,
    /// We advise the system to use huge pages (`MADV_HUGEPAGE`).
    Advise,
    /// In addition, we make a huge page for each arena when we map it (`MADV_COLLAPSE`).
    ///
    /// This works even if the system's setting is `never`. If the system has no huge page left, the
    /// arena consists of small pages. Large mappings are treated as with [`Advise`](Self::Advise).
    Explicit,
}

impl HugePages {
    /// Returns true unless the setting is [`Off`](Self::Off).
    pub const fn is_on(self) -> bool {
        !matches!(self, Self::Off)
    }
}
