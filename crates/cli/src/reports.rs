//! Reads the reports that our library writes about the processes into which it was loaded.
//!
//! A process that is ended by a signal writes no report.

#![forbid(unsafe_code)]

use std::{collections::BTreeMap, fs, process::Command};

use serde::Deserialize;
use tempfile::TempDir;

use crate::failure::{Attempt, Result};

/// The library's report about a process, written when the process exits.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Report {
    /// True if our heap is the allocator of the domains `mem` and `obj`.
    pub in_force: bool,
    /// The reason if our heap is not the allocator of these domains.
    pub reason: Option<String>,
    /// CPython's domains by name.
    pub domains: BTreeMap<String, Domain>,
    /// The requests that our heap served itself.
    pub served: Option<Served>,
}

/// The allocator of one of CPython's domains, and the requests to the domain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Domain {
    /// The allocator: `CPython`, `obmalloc`, or `library` for another library.
    pub served_by: String,
    /// The path of the library or program that contains the allocator.
    pub library: String,
    /// The requests for at most 512 bytes.
    small: Option<Requests>,
    /// The requests for more than 512 bytes.
    large: Option<Requests>,
}

/// The numbers of requests that our heap served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Served {
    /// The number of requests for at most 512 bytes.
    requests: u64,
    /// The number of requests for more than 512 bytes. In a report of an older library, this field
    /// is missing and counts as 0.
    #[serde(default)]
    large: u64,
}

/// A number of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Requests {
    requests: u64,
}

/// A folder into which processes write their reports. It is removed when the value is dropped.
#[derive(Debug)]
pub struct Reports {
    folder: TempDir,
}

impl Reports {
    /// Creates an empty folder.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be created.
    pub fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir().attempt(|| "cannot create a folder for reports")? })
    }

    /// Makes `command` and all processes that it starts write reports.
    pub fn ask(&self, command: &mut Command) {
        command.env("OBMALLOC_STATS", self.folder.path().join("%p.json"));
    }

    /// Returns the finished reports by process id.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read.
    pub fn read(&self) -> Result<BTreeMap<u32, Report>> {
        let mut reports = BTreeMap::new();
        let cannot = || "cannot read the reports of the library";
        for entry in fs::read_dir(self.folder.path()).attempt(cannot)? {
            let path = entry.attempt(cannot)?.path();
            let pid = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            // Another name is that of a report that a process is still writing.
            let Some(pid) = pid else { continue };
            let text = fs::read_to_string(&path).attempt(cannot)?;
            // A process that is killed while it writes may leave an incomplete report.
            if let Ok(report) = serde_json::from_str(&text) {
                reports.insert(pid, report);
            }
        }
        Ok(reports)
    }
}

/// The requests of some processes, and how many of them our heap served.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    served_small: u64,
    served: u64,
    small: u64,
    all: u64,
}

impl Share {
    /// Adds up the requests of several processes.
    pub fn of<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Self {
        let mut share = Self::default();
        for report in reports {
            let requests = |kind: fn(&Domain) -> Option<Requests>| -> u64 {
                report.domains.values().filter_map(kind).map(|counted| counted.requests).sum()
            };
            let small = requests(|domain| domain.small);
            if let Some(Served { requests, large }) = report.served {
                share.served_small += requests;
                share.served += requests + large;
            }
            share.small += small;
            share.all += small + requests(|domain| domain.large);
        }
        share
    }

    /// Returns the share of the requests for at most 512 bytes.
    pub fn of_small(self) -> f64 {
        self.served_small as f64 / self.small.max(1) as f64
    }

    /// Returns the share of all requests.
    pub fn of_all(self) -> f64 {
        self.served as f64 / self.all.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{
        "schema": 1, "pid": 7, "in_force": true, "reason": null,
        "domains": {
            "raw": {"served_by": "CPython", "library": "python3", "small": null, "large": null},
            "mem": {"served_by": "obmalloc", "library": "x.so",
                    "small": {"requests": 60}, "large": {"requests": 40}},
            "obj": {"served_by": "obmalloc", "library": "x.so",
                    "small": {"requests": 40}, "large": {"requests": 60}}
        },
        "served": {"requests": 90, "bytes": 1000, "share": 0.9, "large": 10}, "heap": null
    }"#;

    #[test]
    fn the_share_covers_all_processes() {
        let report: Report = serde_json::from_str(REPORT).unwrap();
        let mut other = report.clone();
        other.served = Some(Served { requests: 100, large: 0 });
        let share = Share::of([&report, &other]);
        assert!((share.of_small() - 0.95).abs() < 1e-9 && (share.of_all() - 0.5).abs() < 1e-9);
    }

    #[test]
    fn reports_are_read_by_process_and_half_a_report_is_ignored() {
        let reports = Reports::new().unwrap();
        let write = |name: &str, text: &str| fs::write(reports.folder.path().join(name), text);
        write("7.json", REPORT).unwrap();
        write("8.json", &REPORT[..50]).unwrap();
        let read = reports.read().unwrap();
        assert_eq!(read.keys().copied().collect::<Vec<_>>(), [7]);
        assert!(read[&7].in_force);
    }
}
