//! Assembles the report of a run of the bench, group by group.

use benches::workload::Group;

use super::{
    bars, fragmentation,
    results::{self, Results},
    verdict::{self, Columns},
};
use crate::report::{self, Part};

pub(super) fn parts(results: &Results) -> Vec<Part> {
    let mut parts: Vec<_> =
        results.groups().into_iter().flat_map(|group| of_group(results, group)).collect();
    parts.extend(fragmentation::parts(&results.fragmentation));
    parts.extend(bars::parts(results));
    parts.push(Part::Line(String::new()));
    parts.push(Part::Line(results.machine.to_string()));
    parts.extend(results.machine.warning().map(Part::Line));
    let known = results.entrants.iter().filter(|one| !one.version.is_empty());
    parts.push(Part::List(known.map(|one| format!("{}: {}", one.name, one.version)).collect()));
    let left_out = results.left_out.iter();
    parts.push(Part::List(left_out.map(|one| format!("LEFT OUT: {one}")).collect()));
    parts.push(Part::Line(results.method()));
    parts.push(Part::Line(format!("Made by cargo xtask {}", results.command.join(" "))));
    parts
}

fn of_group(results: &Results, group: Group) -> Vec<Part> {
    let name = group.name();
    let mut parts = vec![Part::Heading(name.to_owned())];
    let columns = Columns::of(&results.entrants_of(group));
    let all = results::ALL.map(|measured| results.figures(group, measured));
    let [times, peaks, ends, ..] = &all;
    for figures in &all {
        let caption = format!("{name}: {}, {}", figures.measure.name, figures.measure.unit);
        let table = figures.table("workload", &columns.all, &[]);
        parts.extend(table.map(|table| Part::Folded(caption, table)));
    }
    for ours in columns.ours.iter().copied().filter(|ours| times.has(*ours)) {
        let our_name = &times.columns[ours];
        let pairs: Vec<_> = columns.others.iter().map(|other| (ours, *other)).collect();
        let others: Vec<_> = columns.others.iter().map(|at| times.columns[*at].as_str()).collect();
        parts.push(Part::Chart(report::chart(times, &pairs, &others)));
        for figures in [times, peaks, ends] {
            let caption = format!("{name}: {our_name}: {}, ours / theirs", figures.measure.name);
            let table = figures.table("workload", &[ours], &pairs);
            parts.extend(table.map(|table| Part::Table(caption, table)));
        }
        parts.extend(verdict::best_peer(times, ours, &columns.peers).map(Part::Line));
        let mut losses = verdict::losses_in_time(times, ours, &columns.peers);
        for memory in &all[1..] {
            losses.extend(verdict::losses_in_memory(memory, ours, &columns.peers));
        }
        if !losses.is_empty() {
            let known = "Peers need less here; benches/README.md gives the reasons that are known:";
            parts.push(Part::Line(known.to_owned()));
            parts.push(Part::List(losses));
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_page_show_the_same_tables() {
        let times = [("ours", 6.0), ("<fast>", 2.0)];
        let parts = parts(&Results::of_times(Group::Micro, "pair 64", &times));
        let text: String = parts.iter().map(Part::to_string).collect();
        for shown in ["6.00 (0 %)", "ours / theirs", "3.00", "geometric mean", "<fast>"] {
            assert!(text.contains(shown), "{shown} in {text}");
        }
        let page = report::page("a title", &parts);
        for shown in ["<h1>a title</h1>", "6.00 (0 %)", "class=\"loss\">3.00", "&lt;fast&gt;"] {
            assert!(page.contains(shown), "{shown} in {page}");
        }
        assert!(page.contains("<svg") && !page.contains("<fast>"), "{page}");
    }
}
