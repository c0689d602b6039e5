//! Who won: ratios of medians, their means, and where a peer was faster.

use benches::{figures::geometric_mean, workload::Group};

use super::{
    entrant::Role,
    results::{Figure, Results},
};

/// A figure that two allocators are compared by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measure {
    /// How tables call it.
    pub(super) name: &'static str,
    /// Its unit.
    pub(super) unit: &'static str,
    of: fn(&Figure) -> f64,
}

/// Time.
pub(super) const TIME: Measure =
    Measure { name: "time of an operation", unit: "ns", of: |figure| figure.nanoseconds };

/// Memory.
pub(super) const PEAK: Measure = Measure {
    name: "most resident memory",
    unit: "MiB",
    of: |figure| figure.peak / f64::from(1 << 20),
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
        results.figure(group, workload, who).map(self.of)
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

    /// The mean of the ratios of all workloads that both have run.
    pub(super) fn mean(
        self,
        results: &Results,
        group: Group,
        ours: &str,
        theirs: &str,
    ) -> Option<f64> {
        let ratio = |workload| self.ratio(results, group, workload, ours, theirs);
        let ratios: Vec<_> = results.workloads(group).into_iter().filter_map(ratio).collect();
        (!ratios.is_empty()).then(|| geometric_mean(ratios))
    }
}

/// A workload that a peer does in less time than ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Loss {
    pub(super) ours: String,
    pub(super) peer: String,
    pub(super) workload: String,
    pub(super) ratio: f64,
}

/// All of a group, the worst first.
pub(super) fn losses(results: &Results, group: Group) -> Vec<Loss> {
    let mut losses = Vec::new();
    for ours in results.with_role(Role::Ours) {
        for peer in results.with_role(Role::Peer) {
            for workload in results.workloads(group) {
                let ratio = TIME.ratio(results, group, workload, ours, peer);
                if let Some(ratio) = ratio.filter(|ratio| *ratio > 1.0) {
                    let [ours, peer, workload] = [ours, peer, workload].map(str::to_owned);
                    losses.push(Loss { ours, peer, workload, ratio });
                }
            }
        }
    }
    losses.sort_by(|one, other| other.ratio.total_cmp(&one.ratio));
    losses
}
