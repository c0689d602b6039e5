//! Who won: ratios of medians, their means, and where a peer needed less.

use std::{collections::BTreeMap, fmt};

use benches::{figures::geometric_mean, workload::Group};
use serde::Serialize;

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
    of: |figure| Some(figure.peak? / f64::from(1 << 20)),
};

/// Memory that is no block's.
pub(super) const OVERHEAD: Measure = Measure {
    name: "memory of a live block beyond its size",
    unit: "bytes",
    of: |figure| figure.overhead,
};

/// All of them.
const MEASURES: [Measure; 3] = [TIME, PEAK, OVERHEAD];

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

    /// Ours to theirs. None where theirs is nothing.
    pub(super) fn ratio(
        self,
        results: &Results,
        group: Group,
        workload: &str,
        ours: &str,
        theirs: &str,
    ) -> Option<f64> {
        let value = |who| self.value(results, group, workload, who);
        let theirs = value(theirs).filter(|theirs| *theirs > 0.0)?;
        Some(value(ours)? / theirs)
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

/// The ratios of one of ours to one of the others.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Comparison<'a> {
    group: Group,
    measure: &'static str,
    ours: &'a str,
    theirs: &'a str,
    ratios: BTreeMap<&'a str, f64>,
    means: BTreeMap<String, f64>,
}

/// All that can be compared.
pub(super) fn comparisons(results: &Results) -> Vec<Comparison<'_>> {
    let mut comparisons = Vec::new();
    for group in results.groups() {
        for ours in results.with_role(Role::Ours) {
            for theirs in results.others_in(group) {
                let of_measure = |measure| Comparison::of(results, group, measure, ours, theirs);
                comparisons.extend(MEASURES.into_iter().filter_map(of_measure));
            }
        }
    }
    comparisons
}

impl<'a> Comparison<'a> {
    /// `None` where there is nothing that both have.
    fn of(
        results: &'a Results,
        group: Group,
        measure: Measure,
        ours: &'a str,
        theirs: &'a str,
    ) -> Option<Self> {
        let ratio = |name| Some((name, measure.ratio(results, group, name, ours, theirs)?));
        let mean = |(name, of_part): (String, Vec<&str>)| {
            Some((name, measure.mean(results, group, &of_part, ours, theirs)?))
        };
        let ratios: BTreeMap<_, _> =
            results.workloads(group).into_iter().filter_map(ratio).collect();
        let means = parts(results, group).into_iter().filter_map(mean).collect();
        let measure = measure.name;
        (!ratios.is_empty()).then_some(Self { group, measure, ours, theirs, ratios, means })
    }
}

/// The peer that ours is nearest to in time, over all workloads of the group, and what ours takes
/// of its time.
pub(super) fn best_peer<'a>(
    results: &'a Results,
    group: Group,
    ours: &str,
) -> Option<(&'a str, f64)> {
    let all = results.workloads(group);
    let mean = |peer| Some((peer, TIME.mean(results, group, &all, ours, peer)?));
    results.with_role(Role::Peer).filter_map(mean).max_by(|one, other| one.1.total_cmp(&other.1))
}

/// Where peers need less than ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Loss {
    /// The workload, and the measure; or the measure, and at how many workloads.
    what: String,
    /// What ours needs, beside what each peer does; the worst first.
    needs: Vec<String>,
    /// Why, as far as that is known.
    reasons: Vec<&'static str>,
}

/// All of a group, the worst first: in time by workloads, in memory by peers.
pub(super) fn losses(results: &Results, group: Group, ours: &str) -> Vec<Loss> {
    let mut times: Vec<_> = results
        .workloads(group)
        .into_iter()
        .filter_map(|workload| in_time(results, group, workload, ours))
        .collect();
    times.sort_by(|one, other| other.0.total_cmp(&one.0));
    let mut losses: Vec<_> = times.into_iter().map(|(_, loss)| loss).collect();
    for measure in [PEAK, OVERHEAD] {
        let loss = |peer| to_peer(results, group, measure, peer, ours);
        losses.extend(results.with_role(Role::Peer).filter_map(loss));
    }
    losses
}

/// The peers that take less time for `workload`, and the worst ratio.
fn in_time(results: &Results, group: Group, workload: &str, ours: &str) -> Option<(f64, Loss)> {
    let ratio = |peer| TIME.ratio(results, group, workload, ours, peer);
    let mut peers: Vec<_> = results
        .with_role(Role::Peer)
        .filter_map(|peer| Some((peer, ratio(peer)?)))
        .filter(|(_, ratio)| *ratio > 1.0)
        .collect();
    peers.sort_by(|one, other| other.1.total_cmp(&one.1));
    let needs = peers.iter().map(|(peer, ratio)| format!("{ratio:.2} of {peer}")).collect();
    let why = |(peer, _): &(&str, f64)| reasons::why(TIME, group, workload, ours, peer);
    let mut reasons: Vec<_> = peers.iter().filter_map(why).collect();
    reasons.dedup();
    let loss = Loss { what: format!("{workload}, {}", TIME.name), needs, reasons };
    peers.first().map(|(_, worst)| (*worst, loss))
}

/// `measure` at all workloads where `peer` needs less, if there are any; what is told is the worst.
fn to_peer(
    results: &Results,
    group: Group,
    measure: Measure,
    peer: &str,
    ours: &str,
) -> Option<Loss> {
    let value = |workload: &str, who| measure.value(results, group, workload, who);
    let both = |workload| Some((workload, value(workload, ours)?, value(workload, peer)?));
    let of_both: Vec<_> = results.workloads(group).into_iter().filter_map(both).collect();
    let lost: Vec<_> = of_both.iter().filter(|(_, ours, theirs)| ours > theirs).collect();
    // Beside nothing, anything is without end more.
    let (workload, needed, theirs) =
        lost.iter().max_by(|one, other| (one.1 / one.2).total_cmp(&(other.1 / other.2)))?;
    let need = if *theirs > 0.0 {
        format!("{:.2} of {peer}", needed / theirs)
    } else {
        format!("{needed:.2} {} where {peer} needs none", measure.unit)
    };
    let (name, count, all) = (measure.name, lost.len(), of_both.len());
    let what = format!("{name}, at {count} of {all} workloads and most of all at {workload}");
    let reasons = reasons::why(measure, group, workload, ours, peer).into_iter().collect();
    Some(Loss { what, needs: vec![need], reasons })
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ours needs {}; ", self.what, self.needs.join(", "))?;
        match &self.reasons[..] {
            [] => f.write_str("why is not known"),
            known => f.write_str(&known.join("; ")),
        }
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
        let told = concat!(
            "pair 64, time of an operation: ours needs 6.00 of faster, 3.00 of fast; ",
            "why is not known"
        );
        assert_eq!(lines, [told]);
        let (best, ratio) = best_peer(&results, Group::Micro, "ours").unwrap();
        assert!(best == "faster" && (ratio - 6.0).abs() < 1e-9);
    }

    /// Results of two workloads, at which each has so much overhead.
    fn of_overheads(ours: [f64; 2], lean: [f64; 2]) -> Results {
        let mut results = Results::of_times(Group::Scale, "few", &[("ours", 1.0), ("lean", 1.0)]);
        let [mut few, mut many] = [results.figures.clone(), results.figures];
        many.iter_mut().for_each(|figure| figure.workload = "many".to_owned());
        for (place, figures) in [&mut few, &mut many].into_iter().enumerate() {
            figures[0].overhead = Some(ours[place]);
            figures[1].overhead = Some(lean[place]);
        }
        results.figures = [few, many].concat();
        results
    }

    fn told(results: &Results) -> Vec<String> {
        losses(results, Group::Scale, "ours").iter().map(Loss::to_string).collect()
    }

    #[test]
    fn a_loss_in_memory_names_the_peer_and_the_worst_workload() {
        let [told] = &told(&of_overheads([2.0, 3.0], [1.0, 1.0]))[..] else { panic!("one loss") };
        assert!(told.contains("at 2 of 2 workloads and most of all at many"), "{told}");
        assert!(told.ends_with("ours needs 3.00 of lean; why is not known"), "{told}");
    }

    #[test]
    fn a_peer_that_needs_nothing_wins_and_is_told() {
        let [told] = &told(&of_overheads([2.0, 3.0], [0.0, 4.0]))[..] else { panic!("one loss") };
        assert!(told.contains("at 1 of 2 workloads and most of all at few"), "{told}");
        assert!(told.contains("ours needs 2.00 bytes where lean needs none"), "{told}");
    }

    #[test]
    fn nothing_is_no_part_of_a_ratio() {
        let results = Results::of_times(Group::Micro, "pair 64", &[("ours", 6.0), ("none", 0.0)]);
        assert_eq!(TIME.ratio(&results, Group::Micro, "pair 64", "ours", "none"), None);
    }

    #[test]
    fn what_is_compared_has_every_ratio_and_the_mean() {
        let results = Results::of_times(Group::Micro, "pair 64", &[("ours", 6.0), ("fast", 2.0)]);
        let written = serde_json::to_value(comparisons(&results)).unwrap();
        assert_eq!(written[0]["theirs"], "fast");
        assert_eq!(written[0]["ratios"]["pair 64"], 3.0);
        assert_eq!(written[0]["means"].as_object().unwrap().len(), 1);
    }
}
