//! Prints the figures of processes and files.

#![forbid(unsafe_code)]

use std::{ffi::OsString, fs};

use serde_json::Value;

use super::page::{age, figures, page, size};
use crate::{
    failure::{Attempt, Failure, NO, Result},
    output::print,
    table::Table,
};

/// Prints the figures of running processes, or of files that `--stats=PATH.json` wrote.
///
/// An active process publishes its figures about once a second. If a process is idle or has ended,
/// the command shows the figures that the process published last, and their age.
#[derive(Clone, Debug, clap::Args)]
pub struct StatsArgs {
    /// Process ids or files.
    #[arg(required = true, value_name = "PID|FILE")]
    of: Vec<OsString>,
    /// Prints the complete reports as a list in JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the figures of the processes and files that `args` name.
///
/// # Errors
///
/// Fails with the code [`NO`] if a process has no page, or if a file has no report.
pub fn stats(args: &StatsArgs) -> Result<()> {
    let reports: Result<Vec<_>> = args.of.iter().map(report).collect();
    let reports = reports?;
    if args.json {
        print(serde_json::to_string_pretty(&reports).unwrap_or_default() + "\n")?;
    } else {
        print(format!("{}\n", table(&reports)))?;
        if reports.iter().any(|report| report["served"]["requests"].is_null()) {
            print("–: not counted, except with `obmalloc run --stats`\n")?;
        }
    }
    Ok(())
}

fn report(of: &OsString) -> Result<Value> {
    if let Some(pid) = of.to_str().and_then(|text| text.parse().ok()) {
        return of_process(pid);
    }
    let name = of.display();
    let text = fs::read(of).attempt(|| format!("cannot read {name}")).map_err(|e| e.code(NO))?;
    serde_json::from_slice(&text).ok().filter(Value::is_object).ok_or_else(|| {
        Failure::new(format!("{name} is neither a process id nor a report"))
            .because("a report is the JSON that `obmalloc run --stats=PATH.json` writes at exit")
            .remedy("`obmalloc ps` lists process ids")
            .code(NO)
    })
}

/// Returns the figures of the process `pid`, and adds whether it is running and their age.
fn of_process(pid: u32) -> Result<Value> {
    let page = page(pid)?;
    let mut report = figures(&page).ok_or_else(|| {
        let what = format!("process {pid} has published no figures");
        let failure = match page.is_live() {
            true => Failure::new(what).because(
                "it made no request above 512 bytes since Python has started, or it does not use \
                 our heap",
            ),
            false => Failure::new(what).because("it has ended"),
        };
        failure.remedy(format!("`obmalloc doctor {pid}` while it runs")).code(NO)
    })?;
    report["live"] = page.is_live().into();
    report["age_seconds"] = age(&page).map(|age| age.as_secs_f64()).into();
    Ok(report)
}

fn table(reports: &[Value]) -> Table {
    let mut header = vec!["pid".to_owned()];
    header.extend(reports.iter().map(|report| report["pid"].to_string()));
    let mut table = Table::new(header);
    let mut add = |name: &str, of: &dyn Fn(&Value) -> String| {
        let mut row = vec![name.to_owned()];
        row.extend(reports.iter().map(of));
        table.add(row);
    };
    let number =
        |value: &Value| value.as_u64().map_or("–".to_owned(), |number| number.to_string());
    let bytes = |value: &Value| value.as_u64().map_or("–".to_owned(), size);
    add("process", &|report| match report["live"].as_bool() {
        Some(true) => "running".to_owned(),
        Some(false) => "ended".to_owned(),
        None => "from a file".to_owned(),
    });
    add("age of the figures", &|report| {
        report["age_seconds"].as_f64().map_or("–".to_owned(), |age| format!("{age:.1} s"))
    });
    add("in force", &|report| match report["in_force"].as_bool() {
        Some(true) => "yes".to_owned(),
        _ => format!("no: {}", report["reason"].as_str().unwrap_or("no reason given")),
    });
    add("bytes of blocks in use", &|report| bytes(&report["heap"]["bytes"]["in_use"]));
    add("bytes of free blocks", &|report| bytes(&report["heap"]["bytes"]["available"]));
    add("bytes of unused pools", &|report| bytes(&report["heap"]["bytes"]["unused_pools"]));
    add("bytes of arenas", &|report| bytes(&report["heap"]["bytes"]["total"]));
    add("arenas now", &|report| number(&report["heap"]["arenas"]["current"]));
    add("arenas at most", &|report| number(&report["heap"]["arenas"]["highwater"]));
    add("requests served", &|report| number(&report["served"]["requests"]));
    table
}
