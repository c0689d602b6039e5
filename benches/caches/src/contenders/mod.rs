//! All contenders of the benchmark.

mod floor;
mod ours;
mod rivals;

use std::time::Duration;

use crate::pattern::Pattern;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Loop,
    Floor,
    Cache,
    Heap,
    /// Our heap behind an allocator for all sizes.
    Pymalloc,
    Mimalloc,
    Pool,
}

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

/// All contenders. The first of our caches must stay below the allowed times.
pub(crate) const ALL: &[Entry] = entries! {
    "the loop alone" Loop floor::Nothing,
    "a list without bound or figures" Floor floor::BareList,
    "FreeList" Cache ours::Bare<ours::Free>,
    "FreeList, by Cached" Cache ours::Owned<ours::FreeRef>,
    "ThreadCache" Cache ours::Bare<ours::Thread>,
    "thread_cache!, by Cached" Cache ours::Owned<ours::Declared>,
    "BlockCache (CPython 2)" Cache ours::Bare<ours::Blocks>,
    "Heap" Heap ours::HeapBlocks,
    "Pymalloc over Heap" Pymalloc ours::Bytes,
    "mimalloc" Mimalloc rivals::Mi,
    "slab" Pool rivals::Slabs,
    "opool" Pool rivals::Opool,
    "object-pool" Pool rivals::ObjectPool,
    "typed-arena and a stack" Pool rivals::Arenas,
    "a thread_local! stack" Pool rivals::ThreadLocal,
};
