//! What was in force, and what was served: at exit, as text or as JSON.
//!
//! The JSON has these fields. `schema` is 1; it changes when one of the others changes its
//! meaning or goes.
//!
//! | field | value |
//! | --- | --- |
//! | `schema`, `pid`, `python`, `obmalloc` | numbers, and versions as text |
//! | `in_force` | the heap serves mem and obj at this moment |
//! | `reason` | why not, or null |
//! | `reborn` | the heap was installed again in a second life of the interpreter |
//! | `domains` | `raw`, `mem`, `obj`: `served_by` (`CPython`, `obmalloc` or `library`), `library` (a path), and for a counted domain `small` and `large` requests |
//! | `served` | small requests that the heap itself served: `requests`, `bytes`, and their `share` of all small requests |
//! | `heap` | the heap's figures, or null |

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Write},
    process,
};

use allocator_api::{
    Domain,
    hooks::{Counts, Tally},
};
use obmalloc::Stats;
use serde::{Serialize, Serializer, ser::Error};
use serde_json::value::RawValue;

use crate::{
    Start,
    abi::CPython,
    in_force::{Code, Server, is_in_force},
    install::{Installation, SERVED, SMALL},
    rebirth,
    settings::StatsPlace,
};

/// How the report names this library.
const OBMALLOC: &str = "obmalloc";

/// The reason for a heap that was installed and is not in force any more.
pub(crate) const REPLACED: &str = "it was installed, and then other functions were put over it";

/// The figures of this process at one moment.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema: u32,
    pid: u32,
    python: String,
    obmalloc: &'static str,
    in_force: bool,
    reason: Option<String>,
    reborn: bool,
    domains: BTreeMap<&'static str, DomainReport>,
    served: Option<Served>,
    heap: Option<HeapReport>,
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

/// Small requests that went no further than the heap.
#[derive(Debug, Serialize)]
struct Served {
    requests: u64,
    bytes: u64,
    share: f64,
}

/// The heap's figures, which are JSON by themselves.
#[derive(Debug)]
struct HeapReport(Stats);

impl Serialize for HeapReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut json = String::new();
        self.0.write_json(&mut json).map_err(S::Error::custom)?;
        RawValue::from_string(json).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl Report {
    /// Looks at this process.
    pub(crate) fn new(start: &Start) -> Self {
        let Start { python, outcome, .. } = start;
        let installation = outcome.as_ref().ok();
        let asked = installation.and_then(Installation::asked);
        let domains: BTreeMap<_, _> = Domain::ALL
            .into_iter()
            .map(|domain| {
                let counted = SERVED.iter().position(|served| *served == domain);
                let counts = asked.zip(counted).map(|(asked, at)| asked[at]);
                (domain.name(), DomainReport::new(python, domain, counts))
            })
            .collect();
        let in_force = is_in_force(python);
        let reason = match outcome {
            Err(reason) => Some(reason.clone()),
            Ok(_) if in_force => None,
            Ok(_) => Some(REPLACED.to_owned()),
        };
        Self {
            schema: 1,
            pid: process::id(),
            python: python.version_text().replace('\n', ""),
            obmalloc: env!("CARGO_PKG_VERSION"),
            in_force,
            reason,
            reborn: rebirth::happened(),
            domains,
            served: asked.zip(installation.and_then(Installation::sent_below)).map(Served::new),
            heap: installation.and_then(|installed| installed.heap_stats(python)).map(HeapReport),
        }
    }

    /// Writes the report to `place`. What cannot be written is told on stderr, in one line.
    pub(crate) fn write(&self, place: &StatsPlace) {
        let text = if place.is_json() { self.json() } else { self.to_string() };
        let outcome = match place.path(self.pid) {
            Some(path) => fs::write(path, text),
            None => io::stderr().write_all(text.as_bytes()),
        };
        if let Err(error) = outcome {
            // There is nobody left to tell when stderr is closed as well.
            let _ = writeln!(io::stderr(), "obmalloc: no statistics written: {error}");
        }
    }

    fn json(&self) -> String {
        let mut json = serde_json::to_string(self).unwrap_or_else(|error| format!("{error:?}"));
        json.push('\n');
        json
    }
}

impl DomainReport {
    fn new(python: &CPython, domain: Domain, counts: Option<Counts>) -> Self {
        let allocator = python.allocator(domain);
        let served_by = match Server::of(&allocator, python) {
            Server::CPython | Server::Hook => "CPython",
            Server::Obmalloc => OBMALLOC,
            Server::Library(_) => "library",
        };
        Self {
            served_by,
            library: Code::of(&allocator).path.display().to_string(),
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
    /// What was asked for, less what was sent below.
    fn new((asked, sent_below): ([Counts; 2], Tally)) -> Self {
        let all: u64 = asked.iter().map(|counts| counts.small.requests).sum();
        let bytes: u64 = asked.iter().map(|counts| counts.small.bytes).sum();
        // The two were not read at one moment.
        let requests = all.saturating_sub(sent_below.requests);
        let share = if all == 0 { 1.0 } else { requests as f64 / all as f64 };
        Self { requests, bytes: bytes.saturating_sub(sent_below.bytes), share }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, python, obmalloc, .. } = self;
        writeln!(f, "obmalloc {obmalloc} in process {pid}, CPython {python}")?;
        match &self.reason {
            None if self.reborn => writeln!(f, "in force, installed again in a second life")?,
            None => writeln!(f, "in force")?,
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
        if let Some(Served { requests, bytes, share }) = &self.served {
            let percent = share * 100.0;
            writeln!(
                f,
                "served from pools: {requests} blocks, {bytes} bytes, {percent:.2} % of the \
                 requests of at most {SMALL} bytes"
            )?;
        }
        match &self.heap {
            Some(HeapReport(stats)) => write!(f, "\n{stats}"),
            None => Ok(()),
        }
    }
}
