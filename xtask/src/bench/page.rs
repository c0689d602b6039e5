//! The report, as one page that needs nothing else.

use std::fmt::Write;

use anyhow::Result;
use benches::workload::Group;

use super::{
    chart::{self, Series},
    entrant::Role,
    results::Results,
    table,
    verdict::{self, Measure, OVERHEAD, PEAK, TIME},
};

/// What stands before everything else.
const HEAD: &str = "<!DOCTYPE html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>obmalloc and its peers</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; font-size: 13px } svg { max-width: 100%; height: auto }
th, td { padding: 2px 8px; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left } td.loss { background: #fde0d0 }
tr.mean { font-weight: bold } details { margin: 0.5em 0 }
</style></head><body>
<h1>obmalloc and its peers</h1>
";

/// The page of a run.
pub(super) fn page(results: &Results) -> Result<String> {
    let mut page = HEAD.to_owned();
    about(results, &mut page)?;
    for group in results.groups() {
        write!(page, "<h2>{}</h2>", group.name())?;
        for ours in results.with_role(Role::Ours) {
            of_ours(results, group, ours, &mut page)?;
        }
        for measure in [TIME, PEAK, OVERHEAD] {
            values(results, group, measure, &mut page)?;
        }
    }
    page.push_str("</body></html>\n");
    Ok(page)
}

fn about(results: &Results, page: &mut String) -> Result<()> {
    write!(page, "<p>{}</p><p>{}</p>", text(&results.machine.to_string()), results.method())?;
    write!(page, "<p>Made by <code>cargo xtask {}</code></p>", text(&results.command.join(" ")))?;
    page.push_str("<details><summary>versions</summary><ul>");
    for one in &results.entrants {
        write!(page, "<li>{}: {}</li>", text(&one.name), text(&one.version))?;
    }
    page.push_str("</ul></details>");
    if !results.left_out.is_empty() {
        page.push_str("<p>Left out:</p><ul>");
        for one in &results.left_out {
            write!(page, "<li>{}</li>", text(one))?;
        }
        page.push_str("</ul>");
    }
    Ok(())
}

/// The chart of one of ours, its ratios, and where a peer wins.
fn of_ours(results: &Results, group: Group, ours: &str, page: &mut String) -> Result<()> {
    let ran = |workload: &&str| results.figure(group, workload, ours).is_some();
    let workloads: Vec<_> = results.workloads(group).into_iter().filter(ran).collect();
    if workloads.is_empty() {
        return Ok(());
    }
    let others = results.others_in(group);
    let of_other = |other: &&'_ str| {
        workloads.iter().map(|workload| TIME.ratio(results, group, workload, ours, other)).collect()
    };
    let series: Vec<_> =
        others.iter().map(|other| Series { name: other, ratios: of_other(other) }).collect();
    write!(page, "<h3>{}: {}: time, ours / theirs</h3>", group.name(), text(ours))?;
    page.push_str(&chart::ratios(&workloads, &series)?);
    header(&others, page)?;
    for (place, workload) in workloads.iter().enumerate() {
        write!(page, "<tr><td>{}</td>", text(workload))?;
        for one in &series {
            ratio(one.ratios[place], page)?;
        }
        page.push_str("</tr>");
    }
    for (name, of_part) in verdict::parts(results, group) {
        for (name, measure) in [(name.clone(), TIME), (format!("{name} of peak memory"), PEAK)] {
            write!(page, "<tr class=\"mean\"><td>{}</td>", text(&name))?;
            for other in &others {
                ratio(measure.mean(results, group, &of_part, ours, other), page)?;
            }
            page.push_str("</tr>");
        }
    }
    page.push_str("</table>");
    if let Some((peer, ratio)) = verdict::best_peer(results, group, ours) {
        let peer = text(peer);
        write!(page, "<p>The best peer is {peer}: ours takes {ratio:.2} of its time.</p>")?;
    }
    let losses = verdict::losses(results, group, ours);
    if !losses.is_empty() {
        page.push_str("<p>A peer wins:</p><ul>");
        for loss in losses {
            write!(page, "<li>{}</li>", text(&loss.to_string()))?;
        }
        page.push_str("</ul>");
    }
    Ok(())
}

/// The figures themselves, where there are any.
fn values(results: &Results, group: Group, measure: Measure, page: &mut String) -> Result<()> {
    let names: Vec<_> = results.names_in(group).collect();
    let workloads = results.workloads(group);
    let value = |workload: &str, name: &str| measure.value(results, group, workload, name);
    if !workloads.iter().any(|workload| names.iter().any(|name| value(workload, name).is_some())) {
        return Ok(());
    }
    write!(page, "<details><summary>{}, {}</summary>", measure.name, measure.unit)?;
    header(&names, page)?;
    for workload in workloads {
        write!(page, "<tr><td>{}</td>", text(workload))?;
        for name in &names {
            write!(page, "<td>{}</td>", table::figure(results, group, measure, workload, name))?;
        }
        page.push_str("</tr>");
    }
    page.push_str("</table></details>");
    Ok(())
}

fn header(names: &[&str], page: &mut String) -> Result<()> {
    page.push_str("<table><tr><th>workload</th>");
    for name in names {
        write!(page, "<th>{}</th>", text(name))?;
    }
    page.push_str("</tr>");
    Ok(())
}

fn ratio(ratio: Option<f64>, page: &mut String) -> Result<()> {
    match ratio {
        Some(ratio) if ratio > 1.0 => write!(page, "<td class=\"loss\">{ratio:.2}</td>")?,
        Some(ratio) => write!(page, "<td>{ratio:.2}</td>")?,
        None => page.push_str("<td>–</td>"),
    }
    Ok(())
}

/// `text`, as a page has it.
fn text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
