//! Whether a run, and the Pythons that it started, were on our heap.

use std::collections::BTreeMap;

use crate::python::report::Report;

/// A test asked CPython for an allocator in a child: the end of the reason.
pub(super) const ASKED: &str = " makes CPython use allocators of its own";

/// A test left a tracer or a hook over our heap: the end of the reason.
const HOOKED: &str = "other functions were put over it";

/// The processes of one run that left a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Processes {
    /// The one that ran the tests was on our heap.
    pub(super) itself: bool,
    /// How many were on our heap.
    pub(super) ours: usize,
    /// How many were not, by the reason.
    pub(super) others: BTreeMap<String, usize>,
}

impl Processes {
    /// Sorts `reports`, of which `pid` is the process that ran the tests.
    pub(super) fn of(reports: &BTreeMap<u32, Report>, pid: u32) -> Self {
        let mut processes = Self {
            itself: reports.get(&pid).is_some_and(|report| report.in_force),
            ..Self::default()
        };
        for report in reports.values() {
            if report.in_force {
                processes.ours += 1;
            } else {
                let reason = report.reason.as_deref().unwrap_or("no reason given");
                *processes.others.entry(reason.to_owned()).or_default() += 1;
            }
        }
        processes
    }

    /// No test can have brought about that a process was not on our heap.
    pub(super) fn unexplained(&self) -> impl Iterator<Item = &str> {
        let reasons = self.others.keys().map(String::as_str);
        reasons.filter(|reason| ![ASKED, HOOKED].iter().any(|end| reason.ends_with(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(reason: Option<&str>) -> Report {
        Report {
            in_force: reason.is_none(),
            reason: reason.map(str::to_owned),
            domains: BTreeMap::new(),
            served: None,
        }
    }

    #[test]
    fn children_that_a_test_takes_off_our_heap_are_told_from_others() {
        let asked = "PYTHONMALLOC=debug makes CPython use allocators of its own";
        let reports =
            BTreeMap::from([(1, report(None)), (2, report(Some(asked))), (3, report(Some("?")))]);
        let processes = Processes::of(&reports, 1);
        assert!(processes.itself && processes.ours == 1);
        assert_eq!(processes.unexplained().collect::<Vec<_>>(), ["?"]);
        assert!(!Processes::of(&reports, 2).itself);
        assert!(!Processes::of(&reports, 9).itself, "it left no report");
    }
}
