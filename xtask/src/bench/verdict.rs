//! Compares our allocators with the others.

use std::collections::BTreeMap;

use benches::workload::Group;
use serde::Serialize;

use super::{
    entrant::Role,
    results::{self, Named, Results},
};
use crate::report::Figures;

/// The ratios of one of our allocators to another allocator, as `--json` writes them.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    group: Group,
    measure: &'static str,
    ours: String,
    theirs: String,
    ratios: BTreeMap<String, f64>,
    means: BTreeMap<String, f64>,
}

pub(super) fn comparisons(results: &Results) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for group in results.groups() {
        let columns = Columns::of(&results.entrants_of(group));
        let all = results::ALL.map(|measured| results.figures(group, measured));
        let pairs =
            columns.ours.iter().flat_map(|our| columns.others.iter().map(move |it| (*our, *it)));
        let both = pairs.flat_map(|pair| all.iter().map(move |figures| (figures, pair)));
        comparisons.extend(both.filter_map(|(figures, pair)| Comparison::of(group, figures, pair)));
    }
    comparisons
}

impl Comparison {
    fn of(group: Group, figures: &Figures, (ours, theirs): (usize, usize)) -> Option<Self> {
        let rows = figures.rows.iter().enumerate();
        let ratios: BTreeMap<_, _> = rows
            .filter_map(|(row, (name, _))| {
                Some((name.clone(), figures.ratio(row, (ours, theirs))?))
            })
            .collect();
        let means = figures.means.iter();
        let mean = |rows: &[usize]| figures.mean(rows, (ours, theirs));
        let means = means.filter_map(|(name, rows)| Some((name.clone(), mean(rows)?))).collect();
        let [ours, theirs] = [ours, theirs].map(|column| figures.columns[column].clone());
        let measure = figures.measure.name;
        (!ratios.is_empty()).then_some(Self { group, measure, ours, theirs, ratios, means })
    }
}

#[derive(Debug)]
pub(super) struct Columns {
    pub(super) all: Vec<usize>,
    pub(super) ours: Vec<usize>,
    pub(super) others: Vec<usize>,
    pub(super) peers: Vec<usize>,
}

impl Columns {
    pub(super) fn of(entrants: &[&Named]) -> Self {
        let with = |is_one: fn(Role) -> bool| {
            (0..entrants.len()).filter(|column| is_one(entrants[*column].role)).collect()
        };
        Self {
            all: with(|_| true),
            ours: with(|role| role == Role::Ours),
            others: with(|role| role != Role::Ours),
            peers: with(|role| role == Role::Peer),
        }
    }
}

/// Returns a line that names the peer with the lowest geometric mean of times.
pub(super) fn best_peer(times: &Figures, ours: usize, peers: &[usize]) -> Option<String> {
    let all: Vec<_> = (0..times.rows.len()).collect();
    let means = peers.iter().filter_map(|peer| Some((times.mean(&all, (ours, *peer))?, peer)));
    let (ratio, peer) = means.max_by(|one, other| one.0.total_cmp(&other.0))?;
    let peer = &times.columns[*peer];
    Some(format!("The best peer is {peer}: ours takes {ratio:.2} of its time."))
}

/// Returns a line for each workload in which a peer needs less time, the largest loss first.
pub(super) fn losses_in_time(times: &Figures, ours: usize, peers: &[usize]) -> Vec<String> {
    let mut losses = Vec::new();
    for (row, (workload, _)) in times.rows.iter().enumerate() {
        let ratio = |peer: &usize| Some((times.ratio(row, (ours, *peer))?, *peer));
        let mut won: Vec<_> =
            peers.iter().filter_map(ratio).filter(|(ratio, _)| *ratio > 1.0).collect();
        won.sort_by(|one, other| other.0.total_cmp(&one.0));
        let of = |(ratio, peer): &(f64, usize)| format!("{ratio:.2} of {}", times.columns[*peer]);
        let needs: Vec<_> = won.iter().map(of).collect();
        if let Some((worst, _)) = won.first() {
            losses.push((*worst, format!("{workload}, time: ours needs {}", needs.join(", "))));
        }
    }
    losses.sort_by(|one, other| other.0.total_cmp(&one.0));
    losses.into_iter().map(|(_, line)| line).collect()
}

/// Returns a line with the largest loss for each peer that needs less memory somewhere.
pub(super) fn losses_in_memory(memory: &Figures, ours: usize, peers: &[usize]) -> Vec<String> {
    let loss = |peer: &usize| {
        let both = |row: usize| Some((row, memory.value(row, ours)?, memory.value(row, *peer)?));
        let both: Vec<_> = (0..memory.rows.len()).filter_map(both).collect();
        let lost: Vec<_> = both.iter().filter(|(_, ours, theirs)| ours > theirs).collect();
        // The ratio is infinite if the peer needs no additional memory.
        let (row, needed, theirs) =
            lost.iter().max_by(|one, other| (one.1 / one.2).total_cmp(&(other.1 / other.2)))?;
        let (workload, peer) = (&memory.rows[*row].0, &memory.columns[*peer]);
        let (name, unit) = (memory.measure.name, memory.measure.unit);
        let need = if *theirs > 0.0 {
            format!("{:.2} of {peer}", needed / theirs)
        } else {
            format!("{needed:.2} {unit}, and {peer} needs none")
        };
        let (count, all) = (lost.len(), both.len());
        Some(format!("{name}, {count} of {all} workloads, at worst {workload}: ours needs {need}"))
    };
    peers.iter().filter_map(loss).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Figure;

    #[test]
    fn a_loss_in_time_names_the_winners_from_the_worst_on() {
        let times =
            Figures::example(&[("ours", 6.0), ("fast", 2.0), ("faster", 1.0), ("slow", 7.0)]);
        let lines = losses_in_time(&times, 0, &[1, 2, 3]);
        assert_eq!(lines, ["w, time: ours needs 6.00 of faster, 3.00 of fast"]);
        let best = best_peer(&times, 0, &[1, 2, 3]).unwrap();
        assert_eq!(best, "The best peer is faster: ours takes 6.00 of its time.");
    }

    fn overheads(ours: [f64; 2], lean: [f64; 2]) -> Figures {
        let mut figures = Figures::example(&[("ours", ours[0]), ("lean", lean[0])]);
        let second = [ours[1], lean[1]].map(|value| Some(Figure::plain(value)));
        figures.rows.push(("many".to_owned(), second.to_vec()));
        figures
    }

    #[test]
    fn a_loss_in_memory_names_the_peer_and_the_worst_workload() {
        let lines = losses_in_memory(&overheads([2.0, 3.0], [1.0, 1.0]), 0, &[1]);
        assert_eq!(lines, ["time, 2 of 2 workloads, at worst many: ours needs 3.00 of lean"]);
    }

    #[test]
    fn a_peer_that_needs_nothing_is_the_worst_loss() {
        let [line] = &losses_in_memory(&overheads([2.0, 3.0], [0.0, 1.0]), 0, &[1])[..] else {
            panic!("there is one peer");
        };
        assert!(line.ends_with("at worst w: ours needs 2.00 ns, and lean needs none"), "{line}");
    }

    #[test]
    fn a_comparison_has_every_ratio_and_the_mean() {
        let results = Results::of_times(Group::Micro, "pair 64", &[("ours", 6.0), ("fast", 2.0)]);
        let written = serde_json::to_value(comparisons(&results)).unwrap();
        assert_eq!(written.as_array().unwrap().len(), 1);
        assert_eq!(written[0]["theirs"], "fast");
        assert_eq!(written[0]["ratios"]["pair 64"], 3.0);
        let mean = written[0]["means"]["geometric mean"].as_f64().unwrap();
        assert!((mean - 3.0).abs() < 1e-9, "{mean}");
    }
}
