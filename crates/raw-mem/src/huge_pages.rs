//! Whether memory consists of huge pages.

#![forbid(unsafe_code)]

/// The size of a huge page in bytes, on systems whose pages have 4 KiB.
///
/// If huge pages have another size, the system still uses them, but we give back parts of them.
pub const HUGE_PAGE: usize = 2 << 20;

/// Whether a [source](crate::ArenaSource) uses huge pages.
///
/// A huge page takes one page fault instead of 512, and programs reach its memory faster. But it stays in
/// memory as a whole as long as any part of it is in use, and it may be larger than an arena.
///
/// We never use the reserved pool of huge pages (`MAP_HUGETLB`). After a fork, the system takes copies of
/// its pages from the same pool, and kills the child if the pool is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// The system decides.
    #[default]
    Off,
    /// We advise the system to use huge pages (`MADV_HUGEPAGE`).
    Advise,
    /// In addition, each arena is made of a huge page when it is mapped (`MADV_COLLAPSE`).
    ///
    /// This also has an effect if the system's setting is `never`. If the system has no huge page, the
    /// arena consists of small pages. Large mappings are treated as with [`Advise`](Self::Advise).
    Explicit,
}

impl HugePages {
    /// Returns true unless the setting is [`Off`](Self::Off).
    pub const fn is_on(self) -> bool {
        !matches!(self, Self::Off)
    }
}
