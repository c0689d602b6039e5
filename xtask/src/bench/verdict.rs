//! Who won: ratios of medians, their means, and where a peer was faster.

use std::fmt;

use benches::{figures::geometric_mean, workload::Group};

use super::{
    entrant::Role,
    reasons,
    results::{Figure, Results},
};

/// A figure that two allocators are compared by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measure {
    /// How tables call it.
    pub(super) name: &'static str,
    /// Its unit.
    pub(super) unit: &'static str,
    of: fn(&Figure) -> Option<f64>,
}

/// Time.
pub(super) const TIME: Measure =
    Measure { name: "time of an operation", unit: "ns", of: |figure| Some(figure.nanoseconds) };

/// Memory.
pub(super) const PEAK: Measure = Measure {
    name: "most resident memory",
    unit: "MiB",
    of: |figure| Some(figure.peak / f64::from(1 << 20)),
};

/// Memory that is no block's.
pub(super) const OVERHEAD: Measure = Measure {
    name: "memory of a live block beyond its size",
    unit: "bytes",
    of: |figure| figure.overhead,
};

impl Measure {
    /// The figure of `who`.
    pub(super) fn value(
        self,
        results: &Results,
        group: Group,
        workload: &str,
        who: &str,
    ) -> Option<f64> {
        results.figure(group, workload, who).and_then(self.of)
    }

    /// Ours to theirs.
    pub(super) fn ratio(
        self,
        results: &Results,
        group: Group,
        workload: &str,
        ours: &str,
        theirs: &str,
    ) -> Option<f64> {
        let value = |who| self.value(results, group, workload, who);
        Some(value(ours)? / value(theirs)?)
    }

    /// The mean of the ratios of all `workloads` that both have run.
    pub(super) fn mean(
        self,
        results: &Results,
        group: Group,
        workloads: &[&str],
        ours: &str,
        theirs: &str,
    ) -> Option<f64> {
        let ratio = |workload: &&str| self.ratio(results, group, workload, ours, theirs);
        let ratios: Vec<_> = workloads.iter().filter_map(ratio).collect();
        (!ratios.is_empty()).then(|| geometric_mean(ratios))
    }
}

/// Workloads that have a mean of their own, and what it is called: all of a group, and before that
/// those of each Python.
pub(super) fn parts(results: &Results, group: Group) -> Vec<(String, Vec<&str>)> {
    let all = results.workloads(group);
    let mut parts = Vec::new();
    if group == Group::Python {
        let version = |workload: &str| workload.split(' ').next().unwrap_or_default().to_owned();
        let mut versions: Vec<_> = all.iter().map(|workload| version(workload)).collect();
        versions.dedup();
        for one in versions {
            let of_it = all.iter().copied().filter(|workload| version(workload) == one).collect();
            parts.push((format!("geometric mean, {one}"), of_it));
        }
    }
    parts.push(("geometric mean".to_owned(), all));
    parts
}

/// A workload that peers do in less time than ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Loss {
    workload: String,
    /// The peers, and what ours takes of each one's time; the worst first.
    peers: Vec<(String, f64)>,
}

/// All of a group, the worst first.
pub(super) fn losses(results: &Results, group: Group, ours: &str) -> Vec<Loss> {
    let mut losses: Vec<_> = results
        .workloads(group)
        .into_iter()
        .map(|workload| Loss::of(results, group, workload, ours))
        .filter(|loss| !loss.peers.is_empty())
        .collect();
    losses.sort_by(|one, other| other.peers[0].1.total_cmp(&one.peers[0].1));
    losses
}

impl Loss {
    fn of(results: &Results, group: Group, workload: &str, ours: &str) -> Self {
        let ratio = |peer: &str| TIME.ratio(results, group, workload, ours, peer);
        let peers = results.with_role(Role::Peer);
        let mut peers: Vec<_> = peers
            .filter_map(|peer| Some((peer.to_owned(), ratio(peer)?)))
            .filter(|(_, ratio)| *ratio > 1.0)
            .collect();
        peers.sort_by(|one, other| other.1.total_cmp(&one.1));
        Self { workload: workload.to_owned(), peers }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers: Vec<_> = self
            .peers
            .iter()
            .map(|(peer, ratio)| match reasons::why(&self.workload, peer) {
                Some(why) => format!("{ratio:.2} of {peer} ({why})"),
                None => format!("{ratio:.2} of {peer}"),
            })
            .collect();
        write!(f, "{}: ours takes {}", self.workload, peers.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_python_has_a_mean_of_its_own() {
        let results = Results::of_times(Group::Python, "3.13.0 float", &[("ours", 1.0)]);
        let names: Vec<_> =
            parts(&results, Group::Python).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["geometric mean, 3.13.0", "geometric mean"]);
    }

    #[test]
    fn a_loss_names_the_peers_that_win_the_worst_first() {
        let times = [("ours", 6.0), ("fast", 2.0), ("faster", 1.0), ("slow", 7.0)];
        let results = Results::of_times(Group::Micro, "pair 64", &times);
        let losses = losses(&results, Group::Micro, "ours");
        let lines: Vec<_> = losses.iter().map(Loss::to_string).collect();
        assert_eq!(lines, ["pair 64: ours takes 6.00 of faster, 3.00 of fast"]);
    }
}
