//! What CPython keeps: its caches, version by version, as data.
//!
//! Bounds are those of the files named, from their sources; where a bound is the length of an
//! array, that of 2.7.18 and 3.6.15 was also read from the built library. In free-threaded builds
//! each bound is for one thread.
//!
//! ```
//! use object_cache::{FreeList, presets::{Kind, PYTHON_3_13}};
//! use raw_mem::Malloc;
//!
//! let bound = PYTHON_3_13.bound(Kind::Float).unwrap();
//! let floats = FreeList::<f64, _>::new(bound, Malloc);
//! assert_eq!(floats.stats().bound, 100);
//! ```

use core::ops::RangeInclusive;

/// The caches of one version of CPython.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preset {
    /// The version, as in `3.13`.
    pub version: &'static str,
    /// The integers that live forever, for [`Immortals`](crate::Immortals).
    pub small_ints: RangeInclusive<i64>,
    /// Where CPython's source says so.
    pub small_ints_source: &'static str,
    /// Every other cache.
    pub caches: &'static [Entry],
}

/// One cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is cached.
    pub kind: Kind,
    /// How much of it.
    pub keeps: Keeps,
    /// The file of CPython's source that sets the bound.
    pub source: &'static str,
}

/// What CPython caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of Python's types say it")]
pub enum Kind {
    Int,
    Float,
    Complex,
    Tuple,
    List,
    ListIterator,
    TupleIterator,
    Dict,
    /// The keys of a dict of the smallest size.
    DictKeys,
    Set,
    Frame,
    /// A function written in C.
    BuiltinFunction,
    /// A method written in C that knows its class.
    BuiltinMethod,
    BoundMethod,
    Unicode,
    UnicodeWriter,
    BytesWriter,
    Slice,
    Range,
    RangeIterator,
    Context,
    /// What an asynchronous generator yields, wrapped.
    AsyncGenValue,
    AsyncGenSend,
    /// The iterator of an asyncio future.
    FutureIterator,
    /// What the collector keeps pointers to objects in.
    ObjectStackChunk,
    /// A part of a deque. From 3.11 on each deque keeps its own.
    DequeBlock,
    /// Made in advance, so that raising one needs no memory.
    MemoryError,
    /// A part of the stack of frames, after it was popped.
    DataStackChunk,
}

/// How much of a kind is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Up to so many objects: a [`FreeList`](crate::FreeList).
    UpTo(u32),
    /// Up to so many objects of each length: a [`KeyedFreeList`](crate::KeyedFreeList).
    ByLength {
        /// The lengths from 1 to this have a list each.
        longest: usize,
        /// The most that each list keeps.
        each: u32,
    },
    /// Everything, in blocks: a [`BlockCache`](crate::BlockCache).
    Blocks {
        /// The most bytes of a block.
        bytes: usize,
    },
}

impl Preset {
    /// What this version keeps of `kind`; `None` where it has no such cache.
    pub const fn keeps(&self, kind: Kind) -> Option<Keeps> {
        let mut index = 0;
        while index < self.caches.len() {
            if self.caches[index].kind as usize == kind as usize {
                return Some(self.caches[index].keeps);
            }
            index += 1;
        }
        None
    }

    /// The most objects of `kind` that one list keeps; `None` where there is no such cache, or
    /// none with a bound.
    pub const fn bound(&self, kind: Kind) -> Option<u32> {
        match self.keeps(kind) {
            Some(Keeps::UpTo(bound) | Keeps::ByLength { each: bound, .. }) => Some(bound),
            _ => None,
        }
    }
}

/// Every preset, oldest first.
pub const ALL: [&Preset; 6] =
    [&PYTHON_2_7, &PYTHON_3_6, &PYTHON_3_11, &PYTHON_3_13, &PYTHON_3_14, &PYTHON_3_15];

const fn up_to(kind: Kind, bound: u32, source: &'static str) -> Entry {
    Entry { kind, keeps: Keeps::UpTo(bound), source }
}

const fn tuples(longest: usize, source: &'static str) -> Entry {
    Entry { kind: Kind::Tuple, keeps: Keeps::ByLength { longest, each: 2_000 }, source }
}

const fn blocks(kind: Kind, source: &'static str) -> Entry {
    Entry { kind, keeps: Keeps::Blocks { bytes: 1_000 }, source }
}

/// CPython 2.7. A set of one `MemoryError`, shared by all who raise it, is not a cache and not
/// listed.
pub const PYTHON_2_7: Preset = Preset {
    version: "2.7",
    small_ints: -5..=256,
    small_ints_source: "Objects/intobject.c",
    caches: &[
        blocks(Kind::Int, "Objects/intobject.c"),
        blocks(Kind::Float, "Objects/floatobject.c"),
        tuples(19, "Objects/tupleobject.c"),
        up_to(Kind::List, 80, "Objects/listobject.c"),
        up_to(Kind::Dict, 80, "Objects/dictobject.c"),
        up_to(Kind::Set, 80, "Objects/setobject.c"),
        up_to(Kind::Frame, 200, "Objects/frameobject.c"),
        up_to(Kind::BuiltinFunction, 256, "Objects/methodobject.c"),
        up_to(Kind::BoundMethod, 256, "Objects/classobject.c"),
        up_to(Kind::Unicode, 1_024, "Objects/unicodeobject.c"),
        up_to(Kind::DequeBlock, 10, "Modules/_collectionsmodule.c"),
    ],
};

/// CPython 3.6.
pub const PYTHON_3_6: Preset = Preset {
    version: "3.6",
    small_ints: -5..=256,
    small_ints_source: "Objects/longobject.c",
    caches: &[
        up_to(Kind::Float, 100, "Objects/floatobject.c"),
        tuples(19, "Objects/tupleobject.c"),
        up_to(Kind::List, 80, "Objects/listobject.c"),
        up_to(Kind::Dict, 80, "Objects/dictobject.c"),
        up_to(Kind::DictKeys, 80, "Objects/dictobject.c"),
        up_to(Kind::Frame, 200, "Objects/frameobject.c"),
        up_to(Kind::BuiltinFunction, 256, "Objects/methodobject.c"),
        up_to(Kind::BoundMethod, 256, "Objects/classobject.c"),
        up_to(Kind::Slice, 1, "Objects/sliceobject.c"),
        up_to(Kind::AsyncGenValue, 80, "Objects/genobject.c"),
        up_to(Kind::AsyncGenSend, 80, "Objects/genobject.c"),
        up_to(Kind::FutureIterator, 255, "Modules/_asynciomodule.c"),
        up_to(Kind::DequeBlock, 16, "Modules/_collectionsmodule.c"),
        up_to(Kind::MemoryError, 16, "Objects/exceptions.c"),
    ],
};

/// CPython 3.11. It also keeps tuples of 20 items, but never takes one of them out again, so they
/// are not listed.
pub const PYTHON_3_11: Preset = Preset {
    version: "3.11",
    small_ints: -5..=256,
    small_ints_source: "Include/internal/pycore_global_objects.h",
    caches: &[
        up_to(Kind::Float, 100, "Include/internal/pycore_floatobject.h"),
        tuples(19, "Include/internal/pycore_tuple.h, Objects/tupleobject.c"),
        up_to(Kind::List, 80, "Include/internal/pycore_list.h"),
        up_to(Kind::Dict, 80, "Include/internal/pycore_dict.h"),
        up_to(Kind::DictKeys, 80, "Include/internal/pycore_dict.h"),
        up_to(Kind::Slice, 1, "Include/internal/pycore_interp.h"),
        up_to(Kind::Context, 255, "Include/internal/pycore_context.h"),
        up_to(Kind::AsyncGenValue, 80, "Include/internal/pycore_genobject.h"),
        up_to(Kind::AsyncGenSend, 80, "Include/internal/pycore_genobject.h"),
        up_to(Kind::FutureIterator, 255, "Modules/_asynciomodule.c"),
        up_to(Kind::DequeBlock, 16, "Modules/_collectionsmodule.c"),
        up_to(Kind::MemoryError, 16, "Objects/exceptions.c"),
    ],
};

const FREELIST_3_13: &str = "Include/internal/pycore_freelist.h";

/// CPython 3.13.
pub const PYTHON_3_13: Preset = Preset {
    version: "3.13",
    small_ints: -5..=256,
    small_ints_source: "Include/internal/pycore_global_objects.h",
    caches: &[
        up_to(Kind::Float, 100, FREELIST_3_13),
        tuples(20, FREELIST_3_13),
        up_to(Kind::List, 80, FREELIST_3_13),
        up_to(Kind::Dict, 80, FREELIST_3_13),
        up_to(Kind::DictKeys, 80, FREELIST_3_13),
        up_to(Kind::Slice, 1, FREELIST_3_13),
        up_to(Kind::Context, 255, FREELIST_3_13),
        up_to(Kind::AsyncGenValue, 80, FREELIST_3_13),
        up_to(Kind::AsyncGenSend, 80, FREELIST_3_13),
        up_to(Kind::ObjectStackChunk, 4, FREELIST_3_13),
        up_to(Kind::FutureIterator, 255, "Modules/_asynciomodule.c"),
        up_to(Kind::DequeBlock, 16, "Modules/_collectionsmodule.c"),
        up_to(Kind::MemoryError, 16, "Objects/exceptions.c"),
    ],
};

const FREELIST_3_14: &str = "Include/internal/pycore_freelist_state.h";

const CACHES_3_14: [Entry; 23] = [
    // Integers of one digit: magnitude below 2^30.
    up_to(Kind::Int, 100, FREELIST_3_14),
    up_to(Kind::Float, 100, FREELIST_3_14),
    tuples(20, FREELIST_3_14),
    up_to(Kind::List, 80, FREELIST_3_14),
    up_to(Kind::ListIterator, 10, FREELIST_3_14),
    up_to(Kind::TupleIterator, 10, FREELIST_3_14),
    up_to(Kind::Dict, 80, FREELIST_3_14),
    up_to(Kind::DictKeys, 80, FREELIST_3_14),
    up_to(Kind::Slice, 1, FREELIST_3_14),
    up_to(Kind::Range, 6, FREELIST_3_14),
    up_to(Kind::RangeIterator, 6, FREELIST_3_14),
    up_to(Kind::Context, 255, FREELIST_3_14),
    up_to(Kind::AsyncGenValue, 80, FREELIST_3_14),
    up_to(Kind::AsyncGenSend, 80, FREELIST_3_14),
    up_to(Kind::FutureIterator, 255, FREELIST_3_14),
    up_to(Kind::ObjectStackChunk, 4, FREELIST_3_14),
    up_to(Kind::UnicodeWriter, 1, FREELIST_3_14),
    up_to(Kind::BuiltinFunction, 16, FREELIST_3_14),
    up_to(Kind::BuiltinMethod, 16, FREELIST_3_14),
    up_to(Kind::BoundMethod, 20, FREELIST_3_14),
    up_to(Kind::DequeBlock, 16, "Modules/_collectionsmodule.c"),
    up_to(Kind::MemoryError, 16, "Objects/exceptions.c"),
    up_to(Kind::DataStackChunk, 1, "Python/pystate.c"),
];

/// CPython 3.14.
pub const PYTHON_3_14: Preset = Preset {
    version: "3.14",
    small_ints: -5..=256,
    small_ints_source: "Include/internal/pycore_runtime_structs.h",
    caches: &CACHES_3_14,
};

/// The caches of 3.14, and two more.
const CACHES_3_15: [Entry; 25] = {
    let mut caches = [up_to(Kind::Complex, 100, FREELIST_3_14); 25];
    caches[1] = up_to(Kind::BytesWriter, 1, FREELIST_3_14);
    let (_, of_3_14) = caches.split_at_mut(2);
    of_3_14.copy_from_slice(&CACHES_3_14);
    caches
};

/// CPython 3.15: as 3.14, with caches of complex numbers and of writers of bytes, and with more
/// small ints.
pub const PYTHON_3_15: Preset = Preset {
    version: "3.15",
    small_ints: -5..=1_024,
    small_ints_source: "Include/internal/pycore_runtime_structs.h",
    caches: &CACHES_3_15,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_names_a_kind_once() {
        for preset in ALL {
            for (index, entry) in preset.caches.iter().enumerate() {
                let again = preset.caches[..index].iter().any(|before| before.kind == entry.kind);
                assert!(!again, "{}: {:?}", preset.version, entry.kind);
            }
        }
    }

    /// The bounds again, by kind. 0 stands for no cache or one without a bound.
    const BOUNDS: [(Kind, [u32; 6]); 28] = [
        (Kind::Int, [0, 0, 0, 0, 100, 100]),
        (Kind::Float, [0, 100, 100, 100, 100, 100]),
        (Kind::Complex, [0, 0, 0, 0, 0, 100]),
        (Kind::Tuple, [2_000; 6]),
        (Kind::List, [80; 6]),
        (Kind::ListIterator, [0, 0, 0, 0, 10, 10]),
        (Kind::TupleIterator, [0, 0, 0, 0, 10, 10]),
        (Kind::Dict, [80; 6]),
        (Kind::DictKeys, [0, 80, 80, 80, 80, 80]),
        (Kind::Set, [80, 0, 0, 0, 0, 0]),
        (Kind::Frame, [200, 200, 0, 0, 0, 0]),
        (Kind::BuiltinFunction, [256, 256, 0, 0, 16, 16]),
        (Kind::BuiltinMethod, [0, 0, 0, 0, 16, 16]),
        (Kind::BoundMethod, [256, 256, 0, 0, 20, 20]),
        (Kind::Unicode, [1_024, 0, 0, 0, 0, 0]),
        (Kind::UnicodeWriter, [0, 0, 0, 0, 1, 1]),
        (Kind::BytesWriter, [0, 0, 0, 0, 0, 1]),
        (Kind::Slice, [0, 1, 1, 1, 1, 1]),
        (Kind::Range, [0, 0, 0, 0, 6, 6]),
        (Kind::RangeIterator, [0, 0, 0, 0, 6, 6]),
        (Kind::Context, [0, 0, 255, 255, 255, 255]),
        (Kind::AsyncGenValue, [0, 80, 80, 80, 80, 80]),
        (Kind::AsyncGenSend, [0, 80, 80, 80, 80, 80]),
        (Kind::FutureIterator, [0, 255, 255, 255, 255, 255]),
        (Kind::ObjectStackChunk, [0, 0, 0, 4, 4, 4]),
        (Kind::DequeBlock, [10, 16, 16, 16, 16, 16]),
        (Kind::MemoryError, [0, 16, 16, 16, 16, 16]),
        (Kind::DataStackChunk, [0, 0, 0, 0, 1, 1]),
    ];

    #[test]
    fn bounds_are_those_of_the_versions() {
        for (kind, bounds) in BOUNDS {
            assert_eq!(ALL.map(|preset| preset.bound(kind).unwrap_or(0)), bounds, "{kind:?}");
        }
        let blocks = Some(Keeps::Blocks { bytes: 1_000 });
        assert_eq!([Kind::Int, Kind::Float].map(|kind| PYTHON_2_7.keeps(kind)), [blocks; 2]);
        assert_eq!(
            ALL.map(|preset| preset.keeps(Kind::Tuple)),
            [19, 19, 19, 20, 20, 20].map(|longest| Some(Keeps::ByLength { longest, each: 2_000 }))
        );
    }

    #[test]
    fn small_ints_go_to_256_and_from_3_15_on_to_1024() {
        let last = [256, 256, 256, 256, 256, 1_024];
        assert_eq!(ALL.map(|preset| preset.small_ints.clone()), last.map(|last| -5..=last));
    }
}
