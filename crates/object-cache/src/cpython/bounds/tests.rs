use super::*;

type Bounds = &'static [(Kind, u32)];

/// The bounds by version, each of which may extend an earlier version.
const BY_VERSION: [(Version, Option<Version>, Bounds); 6] = [
    (
        Version::V2_7,
        None,
        &[
            (Kind::Tuple, 2_000),
            (Kind::List, 80),
            (Kind::Dict, 80),
            (Kind::Set, 80),
            (Kind::Frame, 200),
            (Kind::BuiltinFunction, 256),
            (Kind::BoundMethod, 256),
            (Kind::Unicode, 1_024),
            (Kind::DequeBlock, 10),
        ],
    ),
    (
        Version::V3_6,
        None,
        &[
            (Kind::Float, 100),
            (Kind::Tuple, 2_000),
            (Kind::List, 80),
            (Kind::Dict, 80),
            (Kind::DictKeys, 80),
            (Kind::Frame, 200),
            (Kind::BuiltinFunction, 256),
            (Kind::BoundMethod, 256),
            (Kind::Slice, 1),
            (Kind::AsyncGenValue, 80),
            (Kind::AsyncGenSend, 80),
            (Kind::FutureIterator, 255),
            (Kind::DequeBlock, 16),
            (Kind::MemoryError, 16),
        ],
    ),
    (
        Version::V3_11,
        None,
        &[
            (Kind::Float, 100),
            (Kind::Tuple, 2_000),
            (Kind::List, 80),
            (Kind::Dict, 80),
            (Kind::DictKeys, 80),
            (Kind::Slice, 1),
            (Kind::Context, 255),
            (Kind::AsyncGenValue, 80),
            (Kind::AsyncGenSend, 80),
            (Kind::FutureIterator, 255),
            (Kind::DequeBlock, 16),
            (Kind::MemoryError, 16),
        ],
    ),
    (Version::V3_13, Some(Version::V3_11), &[(Kind::ObjectStackChunk, 4)]),
    (
        Version::V3_14,
        None,
        &[
            (Kind::Int, 100),
            (Kind::Float, 100),
            (Kind::Tuple, 2_000),
            (Kind::List, 80),
            (Kind::ListIterator, 10),
            (Kind::TupleIterator, 10),
            (Kind::Dict, 80),
            (Kind::DictKeys, 80),
            (Kind::Slice, 1),
            (Kind::Range, 6),
            (Kind::RangeIterator, 6),
            (Kind::Context, 255),
            (Kind::AsyncGenValue, 80),
            (Kind::AsyncGenSend, 80),
            (Kind::FutureIterator, 255),
            (Kind::ObjectStackChunk, 4),
            (Kind::UnicodeWriter, 1),
            (Kind::BuiltinFunction, 16),
            (Kind::BuiltinMethod, 16),
            (Kind::BoundMethod, 20),
            (Kind::DequeBlock, 16),
            (Kind::MemoryError, 16),
            (Kind::DataStackChunk, 1),
        ],
    ),
    (Version::V3_15, Some(Version::V3_14), &[(Kind::Complex, 100), (Kind::BytesWriter, 1)]),
];

#[test]
fn each_version_has_its_bounds_and_no_others() {
    for (version, base, bounds) in BY_VERSION {
        for &kind in KINDS {
            let listed = bounds.iter().find(|(listed, _)| *listed == kind).map(|entry| entry.1);
            let bound = listed.or_else(|| base.and_then(|base| base.bound(kind)));
            assert_eq!(version.bound(kind), bound, "{version:?} {kind:?}");
        }
    }
}

#[test]
fn tuples_are_cached_up_to_19_items_and_from_3_13_up_to_20() {
    assert_eq!(BY_VERSION.map(|(version, ..)| version.longest_tuple()), [19, 19, 19, 20, 20, 20]);
}

#[test]
fn small_ints_go_to_256_and_from_3_15_on_to_1024() {
    let last = [256, 256, 256, 256, 256, 1_024];
    assert_eq!(BY_VERSION.map(|(version, ..)| version.small_ints()), last.map(|last| -5..=last));
}
