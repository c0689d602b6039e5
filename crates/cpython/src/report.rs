//! The statistics at exit, as text or as JSON. The README lists the fields of the JSON.

#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    ffi::c_void,
    fmt::{self, Write},
    process,
};

use allocator_api::{
    Domain, VTable,
    hooks::{Counts, Tally},
};
use host::Place;
use obmalloc::Stats;
use serde::{Serialize, Serializer, ser::Error};
use serde_json::value::RawValue;
use thread_heap::{Detail, Figures};

use crate::{
    abi::CPython,
    domains::{SERVED, Server},
    install::{Installation, SMALL},
    loader::Code,
    outcome::Outcome,
    reinit,
    version::{NEWEST, Version},
};

const OBMALLOC: &str = "obmalloc";

/// The reason why CPython no longer uses an installed heap.
pub(crate) const REPLACED: &str = "it was installed, and then other functions were put over it";

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema: u32,
    pid: u32,
    python: String,
    obmalloc: &'static str,
    known_version: bool,
    in_force: bool,
    counted_only: bool,
    reason: Option<String>,
    reinitialised: bool,
    domains: BTreeMap<&'static str, DomainReport>,
    served: Option<Served>,
    heap: Option<HeapReport>,
    /// The memory of all threads, from CPython 3.12 on.
    process: Option<ProcessReport>,
}

#[derive(Debug, Serialize)]
struct DomainReport {
    served_by: &'static str,
    library: String,
    small: Option<Requests>,
    large: Option<Requests>,
}

#[derive(Debug, Serialize)]
struct Requests {
    requests: u64,
    bytes: u64,
    refused: u64,
}

#[derive(Debug, Serialize)]
struct Served {
    requests: u64,
    bytes: u64,
    share: f64,
    /// The number of requests for more than [`SMALL`] bytes that the heap served.
    large: u64,
}

#[derive(Debug)]
struct HeapReport(Stats);

impl Serialize for HeapReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut json = String::new();
        self.0.write_json(&mut json).map_err(S::Error::custom)?;
        RawValue::from_string(json).map_err(S::Error::custom)?.serialize(serializer)
    }
}

#[derive(Debug)]
struct ProcessReport(Figures);

impl Serialize for ProcessReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut json = String::new();
        self.0.write_json(&mut json, Detail::Classes).map_err(S::Error::custom)?;
        RawValue::from_string(json).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl Report {
    pub(crate) fn new(python: &CPython, outcome: &Outcome) -> Self {
        let installation = outcome.installation();
        let requested = installation.and_then(Installation::requested);
        let version = Version::parse(python.version_text());
        let known_version = version.is_some_and(|version| !version.is_newer());
        // A newer CPython that was refused may have larger vtables, so we do not read them.
        let can_read = known_version || installation.is_some() || outcome.counted().is_some();
        let in_force = outcome.is_in_force(python);
        let reason = match outcome {
            Outcome::Refused { refusal, .. } => Some(refusal.to_string()),
            Outcome::Installed(_) if in_force => None,
            Outcome::Installed(_) => Some(REPLACED.to_owned()),
        };
        let passed_below = installation.and_then(Installation::passed_below);
        let heap = installation.and_then(|installation| installation.heap_stats(python));
        Self {
            schema: 2,
            pid: process::id(),
            python: python.version_text().replace('\n', ""),
            obmalloc: env!("CARGO_PKG_VERSION"),
            known_version,
            in_force,
            counted_only: outcome.counted().is_some(),
            reason,
            reinitialised: reinit::was_reinitialised(),
            domains: Domain::ALL
                .into_iter()
                .filter(|_| can_read)
                .map(|domain| (domain.name(), DomainReport::of(python, domain, outcome)))
                .collect(),
            served: requested.zip(passed_below).map(Served::new),
            heap: heap.map(HeapReport),
            process: installation.and_then(Installation::try_figures).map(ProcessReport),
        }
    }

    pub(crate) fn write(&self, place: &Place) {
        place.write(self.pid, |out, is_json| {
            let text = if is_json { self.json() } else { self.to_string() };
            let _ = out.write_str(&text);
        });
    }

    pub(crate) fn json(&self) -> String {
        let mut json = serde_json::to_string(self).unwrap_or_else(|error| format!("{error:?}"));
        json.push('\n');
        json
    }
}

impl DomainReport {
    fn of(python: &CPython, domain: Domain, outcome: &Outcome) -> Self {
        if let Some(counted) = outcome.counted()
            && let Some(counts) = counted.counts(python, domain)
        {
            // The hook itself serves nothing.
            return Self::new(python, &counted.own(domain), Some(counts));
        }
        let requested = outcome.installation().and_then(Installation::requested);
        let served = SERVED.iter().position(|served| *served == domain);
        let counts = requested.zip(served).map(|(requested, at)| requested[at]);
        Self::new(python, &python.allocator(domain), counts)
    }

    fn new(python: &CPython, vtable: &VTable, counts: Option<Counts>) -> Self {
        let served_by = match Server::of(vtable, python) {
            Server::CPython | Server::Hook => "CPython",
            Server::Obmalloc => OBMALLOC,
            Server::Library(_) => "library",
        };
        Self {
            served_by,
            library: Code::at(vtable.malloc as *const c_void).path.display().to_string(),
            small: counts.map(|counts| Requests::from(counts.small)),
            large: counts.map(|counts| Requests::from(counts.large)),
        }
    }
}

impl From<Tally> for Requests {
    fn from(Tally { requests, bytes, refused, .. }: Tally) -> Self {
        Self { requests, bytes, refused }
    }
}

impl Served {
    /// Computes how many requests the heap served from its own memory.
    ///
    /// This is the number of all requests that succeeded, minus the number of requests that the
    /// allocator below the heap served.
    fn new((requested, passed_below): ([Counts; 2], Counts)) -> Self {
        let sum = |figure: fn(&Counts) -> u64| requested.iter().map(figure).sum::<u64>();
        let all = sum(|counts| counts.small.requests);
        let bytes = sum(|counts| counts.small.bytes);
        let small = sum(|counts| served(counts.small));
        let large = sum(|counts| served(counts.large));
        // Other threads may allocate while we read the counters, so the differences could be
        // negative.
        let requests = small.saturating_sub(served(passed_below.small));
        let share = if all == 0 { 1.0 } else { requests as f64 / all as f64 };
        Self {
            requests,
            bytes: bytes.saturating_sub(passed_below.small.bytes),
            share,
            large: large.saturating_sub(served(passed_below.large)),
        }
    }
}

/// Returns the number of requests that were not refused.
fn served(tally: Tally) -> u64 {
    tally.requests.saturating_sub(tally.refused)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, python, obmalloc, .. } = self;
        writeln!(f, "obmalloc {obmalloc} in process {pid}, CPython {python}")?;
        let again =
            if self.reinitialised { ", installed again by a later Py_Initialize" } else { "" };
        match &self.reason {
            None if !self.known_version => {
                writeln!(f, "in force{again}, in a CPython newer than {NEWEST}")?;
            }
            None => writeln!(f, "in force{again}")?,
            Some(reason) if self.counted_only => writeln!(f, "counted only: {reason}")?,
            Some(reason) => writeln!(f, "not in force: {reason}")?,
        }
        for (name, DomainReport { served_by, library, small, large }) in &self.domains {
            writeln!(f, "  {name}: {served_by} ({library})")?;
            for (kind, requests) in [("at most", small), ("above", large)] {
                if let Some(Requests { requests, bytes, refused }) = requests {
                    writeln!(
                        f,
                        "       {requests} requests of {kind} {SMALL} bytes, {bytes} bytes, \
                         {refused} refused"
                    )?;
                }
            }
        }
        if let Some(Served { requests, bytes, share, large }) = &self.served {
            let percent = share * 100.0;
            writeln!(
                f,
                "served from pools: {requests} blocks, {bytes} bytes, {percent:.2} % of the \
                 requests of at most {SMALL} bytes; and {large} larger requests"
            )?;
        }
        match &self.heap {
            Some(HeapReport(stats)) => write!(f, "\n{stats}"),
            None => Ok(()),
        }
    }
}
