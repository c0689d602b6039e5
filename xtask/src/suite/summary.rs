//! The result of the comparison, as lines of text and as a table.

use testkit::pythons::Python;

use super::{attempt, pair::Compared};
use crate::report::Table;

pub(super) struct Done<'a> {
    pub(super) python: &'a Python,
    pub(super) file: &'static str,
    pub(super) compared: Compared,
}

pub(super) fn lines(compared: &Compared) -> Vec<String> {
    let Compared { tests, took, processes, .. } = compared;
    let (same, seconds, ours) = (compared.same(), took.as_secs(), processes.ours);
    let mut lines =
        vec![format!("{tests} tests, {same} the same, {seconds} s; {ours} processes on our heap")];
    if !processes.others.is_empty() {
        let short = |reason: &str| reason.trim_end_matches(attempt::REQUESTED).to_owned();
        let others = processes.others.iter();
        let others: Vec<_> =
            others.map(|(reason, count)| format!("{count} × {}", short(reason))).collect();
        lines.push(format!("processes not on our heap: {}", others.join(", ")));
    }
    lines.extend(compared.permitted.iter().map(|test| format!("differs, as it may: {test}")));
    let flaky = compared.flaky.iter();
    lines.extend(flaky.map(|(test, seen)| format!("FLAKY, did not repeat: {test}: {seen}")));
    let different = compared.different.iter();
    lines.extend(different.map(|(test, evidence)| format!("DIFFERENT: {test}: {evidence}")));
    lines
}

pub(super) fn table(done: &[Done<'_>]) -> Table {
    let mut rows: Vec<_> = done.iter().collect();
    rows.sort_by_key(|done| (done.python.version, &done.python.executable, done.file));
    let counts = ["tests", "same", "permitted", "flaky", "different", "on our heap", "s"];
    let mut table = Table::new(["Python", "file"].into_iter().chain(counts));
    for Done { python, file, compared } in rows {
        let counts = [
            compared.tests,
            compared.same(),
            compared.permitted.len(),
            compared.flaky.len(),
            compared.different.len(),
            compared.processes.ours,
            compared.took.as_secs() as usize,
        ];
        let names = [python.name(), (*file).to_owned()].into_iter();
        table.add(names.chain(counts.map(|count| count.to_string())));
    }
    table
}
