//! The page about memory over time, as text and with charts.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use benches::memory::{Curve, NAMES};

use super::{
    measured::Measured,
    way::{Host, OURS, OWN, Way},
};
use crate::{
    report::{Line, Table, curves},
    workspace,
};

const PAGE: &str = "docs/memory-over-time.md";

const CHARTS: &str = "memory-over-time";

const MIB: f64 = (1 << 20) as f64;

const INTRODUCTION: &str = "\
Each workload needs much memory for a while. The charts show how much stays resident with several
allocators. No allocator that leaves live blocks in place can have less than the pages that hold a part
of a live block, which are the lower dashed curve.

- **rounds**: beside a base of 32 MiB, a program builds much, drops all but 1 in 10,000 blocks, and
  repeats this 50 times. This is the workload for which CPython's arenas were made.
- **requests**: a web worker with 48 MiB of its own. Each of 150 requests allocates 1 to 50 MiB and drops
  all but 0.1 %.
- **a week of requests**: the same in simulated time, in which an hour takes 50 ms. At night there are
  hardly any requests.
- **1 in n survives**: 260 MiB of blocks of 80 bytes, of which a few survive. The program then does little
  for two seconds.
- **changing sizes**: all blocks are replaced by blocks of another size, in random order, ten times.
- **idle threads**: 16 threads build 8 MiB each, drop it, and wait for a second, three times.

\"Eager\" is mimalloc with `MIMALLOC_PURGE_DELAY=0`, and jemalloc with a decay of 0 ms. \"Trimmed\" means that
the program calls the allocator's trim whenever it has freed much. Under Python, the allocators of C
programs serve all requests of the interpreter (`PYTHONMALLOC=malloc`).
";

/// Returns the tables, as Markdown.
pub(super) fn text(measured: &Measured) -> String {
    Host::ALL
        .into_iter()
        .map(|host| format!("## {}\n\n{}", host.name(), of(measured, host)))
        .collect()
}

fn of(measured: &Measured, host: Host) -> String {
    let mut text = bars(measured, host);
    for name in NAMES {
        let Some(curves) = measured.curves.get(&(host, name)) else { continue };
        text += &format!("### {name}, {}\n\n", host.name());
        text += &table(curves).markdown();
        text += "\n\n";
    }
    text
}

fn table(curves: &[(&Way, Curve)]) -> Table {
    let header =
        ["allocator", "mean RSS, MiB", "peak", "end", "live pages at the end", "CPU time, s"];
    let mut table = Table::new(header);
    for (way, curve) in curves {
        let Some(last) = curve.samples.last() else { continue };
        let mib = |bytes: f64| format!("{:.1}", bytes / MIB);
        let pages = last.pages.map_or("–".to_owned(), |pages| mib(pages as f64));
        table.add([
            way.name.to_owned(),
            mib(curve.mean()),
            mib(curve.peak()),
            mib(last.resident as f64),
            pages,
            format!("{:.2}", curve.seconds),
        ]);
    }
    table
}

/// Returns the measured figures for the bars of this page, for each of our ways.
fn bars(measured: &Measured, host: Host) -> String {
    let mut table = Table::new(["bar", "allocator", "measured", "at most", "held"]);
    for name in NAMES {
        let Some(curves) = measured.curves.get(&(host, name)) else { continue };
        for (way, curve) in curves.iter().filter(|(way, _)| way.name.starts_with(OURS)) {
            for (bar, value, most) in bars_of(name, curve, curves) {
                let held = if value <= most { "yes" } else { "NO" };
                let (value, most) = (format!("{value:.2}"), format!("{most:.2}"));
                let bar = format!("{name}: {bar}");
                table.add([bar, way.name.to_owned(), value, most, held.to_owned()]);
            }
        }
    }
    format!("{}\n\n", table.markdown())
}

/// Returns the name of each bar of a workload, the measured figure, and its limit.
fn bars_of(name: &str, curve: &Curve, all: &[(&Way, Curve)]) -> Vec<(String, f64, f64)> {
    if name.contains("survives") {
        return survivors(curve).into_iter().collect();
    }
    let quiet: Vec<_> = curve.samples.iter().filter(|sample| sample.pages.is_some()).collect();
    if name == "rounds"
        && let [first, rest @ ..] = &quiet[..]
        && let Some(second) = rest.first()
    {
        let worst = rest.iter().map(|sample| sample.resident).max().unwrap_or(0) as f64;
        let last = rest.last().map_or(0, |sample| sample.resident) as f64;
        let before = "worst RSS after a round / before the first".to_owned();
        let creep = "RSS after the last round / after the first".to_owned();
        return vec![
            (before, worst / first.resident as f64, 1.1),
            (creep, last / second.resident as f64, 1.05),
        ];
    }
    let mean_of = |is_one: fn(&str) -> bool| {
        let means = all.iter().filter(|(way, _)| is_one(way.name)).map(|(_, curve)| curve.mean());
        means.min_by(f64::total_cmp)
    };
    let own =
        mean_of(|name| name == OWN).map(|own| ("mean RSS / CPython's own".to_owned(), own, 0.75));
    let is_default_peer =
        |name: &str| !name.starts_with(OURS) && !name.contains(',') && name != OWN;
    let best = mean_of(is_default_peer);
    let best = best.map(|best| ("mean RSS / best peer by default".to_owned(), best, 1.0));
    own.into_iter()
        .chain(best)
        .map(|(bar, theirs, most)| (bar, curve.mean() / theirs, most))
        .collect()
}

/// Returns the resident memory at the end in MiB, and the limit that follows from the pages with
/// live blocks.
fn survivors(curve: &Curve) -> Option<(String, f64, f64)> {
    let last = curve.samples.last()?;
    let most = 1.15 * last.pages? as f64 / MIB + 12.0;
    Some(("RSS, MiB".to_owned(), last.resident as f64 / MIB, most))
}

/// Writes the page and its charts.
pub(super) fn write(measured: &Measured) -> Result<()> {
    let docs = workspace::root().join("docs");
    fs::create_dir_all(docs.join(CHARTS))?;
    let mut text = format!("# Memory over time\n\n{INTRODUCTION}");
    for host in Host::ALL {
        text += &format!("\n## {}\n\n{}", host.name(), bars(measured, host));
        for name in NAMES {
            let Some(curves) = measured.curves.get(&(host, name)) else { continue };
            let file = format!("{CHARTS}/{}-{}.svg", host.name().to_lowercase(), slug(name));
            write_file(&docs.join(&file), &chart(name, host, curves))?;
            text += &format!("### {name}, {}\n\n![{name}]({file})\n\n", host.name());
            text += &table(curves).markdown();
            text += "\n\n";
        }
    }
    text += &format!("## How this was measured\n\n{}. {}.\n", measured.machine, measured.python);
    for line in &measured.left_out {
        text += &format!("\nLeft out: {line}.\n");
    }
    text += "\n`cargo xtask bench --memory` wrote this page.\n";
    write_file(&workspace::root().join(PAGE), &text)
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn slug(name: &str) -> String {
    name.chars().filter(|one| *one != ',').map(|one| if one == ' ' { '-' } else { one }).collect()
}

fn chart(name: &str, host: Host, all: &[(&Way, Curve)]) -> String {
    let line = |(way, curve): &(&Way, Curve)| Line {
        name: way.name.to_owned(),
        points: curve.samples.iter().map(|one| (one.at, one.resident as f64 / MIB)).collect(),
        is_bound: false,
    };
    let mut lines: Vec<_> = all.iter().map(line).collect();
    if let Some((_, first)) = all.first() {
        let points = first.samples.iter().map(|one| (one.at, one.live as f64 / MIB)).collect();
        lines.push(Line { name: "live bytes".to_owned(), points, is_bound: true });
        let counted =
            first.samples.iter().filter_map(|one| Some((one.at, one.pages? as f64 / MIB)));
        let points = counted.collect();
        lines.push(Line { name: "pages with live blocks".to_owned(), points, is_bound: true });
    }
    let x = if name.contains("week") { "hours" } else { "seconds" };
    curves(&format!("{name}, {}", host.name()), (x, "resident memory, MiB"), &lines)
}

#[cfg(test)]
mod tests {
    use benches::memory::Sample;

    use super::*;

    fn curve(residents: &[u64]) -> Curve {
        let samples = (0_u32..).zip(residents).map(|(at, resident)| Sample {
            at: f64::from(at),
            live: 1 << 20,
            pages: Some(2 << 20),
            resident: resident << 20,
        });
        Curve { samples: samples.collect(), seconds: 1.0 }
    }

    #[test]
    fn survivors_may_take_a_little_more_than_their_pages() {
        let (_, measured, most) = survivors(&curve(&[300, 20])).unwrap();
        assert!((measured - 20.0).abs() < 1e-9 && (most - 14.3).abs() < 1e-9);
    }

    #[test]
    fn rounds_are_compared_with_the_memory_before_the_first() {
        let bars = bars_of("rounds", &curve(&[100, 105, 120, 105]), &[]);
        assert!((bars[0].1 - 1.2).abs() < 1e-9 && (bars[1].1 - 1.0).abs() < 1e-9, "{bars:?}");
    }

    #[test]
    fn the_best_peer_has_default_settings() {
        use super::super::way::WAYS;
        let way = |name: &str| WAYS.iter().find(|way| way.name == name).unwrap();
        let all =
            [("obmalloc", 50), ("CPython's own", 100), ("jemalloc", 40), ("jemalloc, eager", 10)];
        let all = all.map(|(name, mib)| (way(name), curve(&[mib])));
        let bars = bars_of("requests", &all[0].1, &all);
        let figures: Vec<_> = bars.iter().map(|bar| (bar.1 * 100.0).round() as u32).collect();
        assert_eq!(figures, [50, 125]);
    }

    #[test]
    fn the_files_of_charts_have_plain_names() {
        assert_eq!(slug("1 in 1,000 survives, at random"), "1-in-1000-survives-at-random");
    }
}
