//! What a comparison came to, in lines and as a table.

use comfy_table::{CellAlignment, Table, presets};

use super::{Done, children, pair::Compared};

/// The lines about one file on one Python.
pub(super) fn lines(compared: &Compared) -> Vec<String> {
    let Compared { tests, took, processes, .. } = compared;
    let (same, seconds) = (compared.same(), took.as_secs());
    let ours = processes.ours;
    let mut lines =
        vec![format!("{tests} tests, {same} the same, {seconds} s; {ours} processes on our heap")];
    if !processes.others.is_empty() {
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

/// What a test asked for, of the reason that this gives.
fn short(reason: &str) -> &str {
    reason.strip_suffix(children::ASKED).unwrap_or(reason)
}

/// A row for each file on each Python.
pub(super) fn table(done: &[Done<'_>]) -> Table {
    let mut rows: Vec<_> = done.iter().collect();
    rows.sort_by_key(|done| (done.python.version, &done.python.executable, done.file));
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "Python",
        "file",
        "tests",
        "same",
        "permitted",
        "flaky",
        "different",
        "on our heap",
        "s",
    ]);
    for Done { python, file, compared } in rows {
        let counts = [
            compared.tests,
            compared.same(),
            compared.permitted.len(),
            compared.flaky.len(),
            compared.different.len(),
            compared.processes.ours,
        ];
        let mut cells = vec![python.name(), (*file).to_owned()];
        cells.extend(counts.map(|count| count.to_string()));
        cells.push(compared.took.as_secs().to_string());
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
