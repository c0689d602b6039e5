//! Why a peer wins, where that is known.

/// The beginning of a workload's name, the peer, and what it does there that ours does not.
const KNOWN: &[(&str, &str, &str)] = &[(
    "xmalloc",
    "jemalloc",
    "it hands a block out again where it was freed, ours goes home to its owner first",
)];

/// What is known of `peer` winning at `workload`.
pub(super) fn why(workload: &str, peer: &str) -> Option<&'static str> {
    let known = |(name, who, _): &&(&str, &str, &str)| workload.starts_with(name) && *who == peer;
    KNOWN.iter().find(known).map(|(_, _, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_by_the_beginning_of_the_workload_and_the_peer() {
        assert!(why("xmalloc, 2 threads", "jemalloc").is_some());
        assert!(why("xmalloc, 2 threads", "snmalloc").is_none());
        assert!(why("pair 64", "jemalloc").is_none());
    }
}
