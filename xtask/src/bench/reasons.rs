//! Why a peer needs less, where that is known.

use super::verdict::TIME;

/// The measure, the beginning of a workload's name, the peer, and what it does there that ours does
/// not.
const KNOWN: &[(&str, &str, &str, &str)] = &[(
    TIME.name,
    "xmalloc",
    "jemalloc",
    "it hands a block out again where it was freed, ours goes home to its owner first",
)];

/// What is known of `peer` needing less at `workload`.
pub(super) fn why(measure: &str, workload: &str, peer: &str) -> Option<&'static str> {
    let mut known = KNOWN.iter();
    let known = known
        .find(|(of, name, who, _)| *of == measure && workload.starts_with(name) && *who == peer);
    known.map(|(_, _, _, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_by_measure_peer_and_the_beginning_of_the_workload() {
        assert!(why(TIME.name, "xmalloc, 2 threads", "jemalloc").is_some());
        assert!(why(TIME.name, "xmalloc, 2 threads", "snmalloc").is_none());
        assert!(why(TIME.name, "pair 64", "jemalloc").is_none());
        assert!(why("memory", "xmalloc, 2 threads", "jemalloc").is_none());
    }
}
