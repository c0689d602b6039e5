//! All that are compared.

mod floor;
mod ours;
mod rivals;

use std::time::Duration;

use crate::pattern::Pattern;

/// What a contender is to our caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The loop.
    Loop,
    /// What any list of dead objects must do.
    Floor,
    /// One of our caches.
    Cache,
    /// Our heap.
    Heap,
    /// Our heap as an allocator of any size.
    Pymalloc,
    /// mimalloc.
    Mimalloc,
    /// A pool of objects of another crate, or such as programs write for themselves.
    Pool,
}

/// One of them.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) run: fn(Pattern, usize) -> Duration,
}

macro_rules! entries {
    ($($name:literal $kind:ident $Contender:ty,)*) => {
        &[$(Entry {
            name: $name,
            kind: Kind::$kind,
            run: |pattern, pairs| pattern.run::<$Contender>(pairs),
        }),*]
    };
}

/// All of them. The first of our caches is the one that the bars are for.
pub(crate) const ALL: &[Entry] = entries! {
    "the loop alone" Loop floor::Nothing,
    "a list without bound or figures" Floor floor::BareList,
    "FreeList" Cache ours::Free,
    "FreeList, by Cached" Cache ours::Owned,
    "ThreadCache" Cache ours::Thread,
    "Heap" Heap ours::Blocks,
    "Pymalloc over Heap" Pymalloc ours::Bytes,
    "mimalloc" Mimalloc rivals::Mi,
    "slab" Pool rivals::Slabs,
    "opool" Pool rivals::Opool,
    "object-pool" Pool rivals::ObjectPool,
    "typed-arena and a stack" Pool rivals::Arenas,
    "a thread_local! stack" Pool rivals::ThreadLocal,
};
