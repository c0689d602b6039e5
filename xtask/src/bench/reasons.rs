//! Why a peer needs less, where that is known.

use benches::workload::Group;

use super::verdict::{Measure, OVERHEAD, PEAK, TIME};

/// What explains that a peer needs less. An empty name is anyone's.
struct Reason {
    measure: Measure,
    group: Group,
    /// How the workload's name begins.
    workload: &'static str,
    /// How the name of ours begins.
    ours: &'static str,
    peer: &'static str,
    why: &'static str,
}

/// The first that fits is told.
const KNOWN: &[Reason] = &[
    Reason {
        measure: TIME,
        group: Group::Patterns,
        workload: "xmalloc",
        ours: "ObMalloc",
        peer: "jemalloc",
        why: "it hands a block out again where it was freed, ours goes home to its owner first",
    },
    Reason {
        measure: TIME,
        group: Group::Micro,
        workload: "grow",
        ours: "Heap",
        peer: "",
        why: "a heap alone has no realloc, so that each step is a new block and a copy",
    },
    Reason {
        measure: TIME,
        group: Group::Micro,
        workload: "",
        ours: "Heap, CPython's rules",
        peer: "",
        why: "headers 16 KiB apart, as CPython's, fall into one set of the cache",
    },
    Reason {
        measure: TIME,
        group: Group::Programs,
        workload: "document",
        ours: "ObMalloc",
        peer: "",
        why: "the nodes of its maps are above 512 bytes, where ours are the C library's",
    },
    Reason {
        measure: TIME,
        group: Group::Python,
        workload: "3.11",
        ours: "",
        peer: "CPython's own",
        why: "its allocator takes 3 to 7 % of most programs' time there, and 71 instructions for a \
              pair where that of 3.12 takes 116",
    },
    Reason {
        measure: PEAK,
        group: Group::Python,
        workload: "",
        ours: "",
        peer: "CPython's own",
        why: "the library's own code is resident, some 300 KiB of pages that all processes share",
    },
    Reason {
        measure: OVERHEAD,
        group: Group::Scale,
        workload: "",
        ours: "",
        peer: "rpmalloc",
        why: "it has one header for 64 KiB of blocks, ours one for 16 KiB",
    },
    Reason {
        measure: OVERHEAD,
        group: Group::Scale,
        workload: "",
        ours: "",
        peer: "mimalloc v3",
        why: "its pages have 64 KiB and more, ours 16 KiB",
    },
    Reason {
        measure: OVERHEAD,
        group: Group::Scale,
        workload: "",
        ours: "Heap, CPython's rules",
        peer: "CPython",
        why: "the same headers and arenas; what is resident is seen to a page of 4 KiB",
    },
];

/// What is known of `peer` needing less than `ours` at `workload`.
pub(super) fn why(
    measure: Measure,
    group: Group,
    workload: &str,
    ours: &str,
    peer: &str,
) -> Option<&'static str> {
    let fits = |reason: &&Reason| {
        reason.measure.name == measure.name
            && reason.group == group
            && workload.starts_with(reason.workload)
            && ours.starts_with(reason.ours)
            && (reason.peer.is_empty() || reason.peer == peer)
    };
    KNOWN.iter().find(fits).map(|reason| reason.why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_by_measure_group_workload_ours_and_peer() {
        let patterns = Group::Patterns;
        let xmalloc = "xmalloc, 2 threads";
        assert!(why(TIME, patterns, xmalloc, "ObMalloc", "jemalloc").is_some());
        assert!(why(TIME, patterns, xmalloc, "ObMalloc", "snmalloc").is_none());
        assert!(why(TIME, patterns, "sh6, 2 threads", "ObMalloc", "jemalloc").is_none());
        assert!(why(OVERHEAD, patterns, xmalloc, "ObMalloc", "jemalloc").is_none());
        assert!(why(TIME, Group::Micro, "batch same", "Heap", "rpmalloc").is_none());
    }
}
