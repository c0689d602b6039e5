//! The setting for huge pages.

#![forbid(unsafe_code)]

/// The size of a huge page in bytes, on systems with pages of 4 KiB.
///
/// If the system's huge pages have another size, we may return only a part of a huge page.
pub const HUGE_PAGE: usize = 2 << 20;

/// Whether a [source](crate::ArenaSource) uses huge pages.
///
/// A huge page of 2 MiB causes one page fault, whereas the same memory in pages of 4 KiB causes
/// 512. Access to a huge page is also faster. However, a huge page can waste memory: if several
/// arenas share a huge page, the whole page stays in memory while any of these arenas is in use.
///
/// We never use the flag `MAP_HUGETLB`. It takes huge pages from a reserved pool, and this pool can
/// become empty. This is dangerous after a fork. At first, the parent and the child share each huge
/// page. When one of them writes to the page, the kernel needs a second huge page from the pool. If
/// the pool is empty at that time, the kernel kills the child, even if the parent was the first to
/// write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// The system decides.
    #[default]
    Off,
    /// We advise the system to use huge pages (`MADV_HUGEPAGE`).
    Advise,
    /// In addition, we make a huge page for each arena when we map it (`MADV_COLLAPSE`).
    ///
    /// Arenas get huge pages even if the system setting for transparent huge pages is `never`. If
    /// the system cannot provide a huge page, the arena consists of small pages.
    ///
    /// A block that is too large for an arena has a large mapping of its own. For large mappings,
    /// we only advise the system to use huge pages, as with [`Advise`](Self::Advise).
    Explicit,
}

impl HugePages {
    /// Returns true unless the setting is [`Off`](Self::Off).
    pub const fn is_on(self) -> bool {
        !matches!(self, Self::Off)
    }
}
