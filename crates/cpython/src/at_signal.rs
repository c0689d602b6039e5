//! Reports at moments other than a normal exit.
//!
//! A signal handler may write a report after it has interrupted the allocator or the holder of a
//! lock. While we write a report, we therefore neither allocate memory nor wait for a lock. The
//! signal may also have interrupted a thread that was changing its heap, so these reports omit all
//! figures that only the owner of a heap can count. The report of a process that ends with `_exit`
//! or `quick_exit` has none of these restrictions, because CPython calls neither of them in a
//! signal handler.

use std::{
    fmt::{self, Write},
    process,
    sync::{Arc, OnceLock},
};

use host::{Moment, Output, Place};
use thread_heap::{Detail, Figures};

use crate::settings::Settings;

/// The functions that provide the contents of a report.
pub(crate) struct Sources {
    pub(crate) is_installed: bool,
    /// Writes the report of a normal exit.
    pub(crate) at_exit: fn(),
    /// Returns the number and the bytes of all requests to mem and obj.
    pub(crate) requests: fn() -> Option<(u64, u64)>,
    /// Counts the memory of all threads.
    pub(crate) figures: fn() -> Option<Figures>,
}

static REPORTS: OnceLock<(Arc<Place>, Sources)> = OnceLock::new();

/// Writes reports from now on, at the moments that the settings specify.
pub(crate) fn watch(settings: &Settings, sources: Sources) {
    if let Some(place) = &settings.stats {
        REPORTS.get_or_init(|| (Arc::clone(place), sources));
        // SAFETY: except at an exit, `write_at` neither allocates memory, nor waits for a lock, nor
        // reads what only the owner of a heap may read. CPython calls neither `_exit` nor
        // `quick_exit` in a signal handler.
        unsafe { host::watch(&settings.moments, write_at) };
    }
}

fn write_at(moment: Moment) {
    let Some((place, sources)) = REPORTS.get() else { return };
    if moment == Moment::Exit {
        // CPython never calls `_exit` in a signal handler, so this report may allocate memory.
        return (sources.at_exit)();
    }
    place.write(process::id(), |out, is_json| {
        let _ = match is_json {
            true => write_json(out, moment, sources),
            false => write_text(out, moment, sources),
        };
    });
}

fn write_json(out: &mut Output<'_>, moment: Moment, sources: &Sources) -> fmt::Result {
    let (pid, version) = (process::id(), env!("CARGO_PKG_VERSION"));
    write!(out, "{{\"schema\":2,\"pid\":{pid},\"obmalloc\":\"{version}\",")?;
    write!(out, "\"moment\":\"{moment}\",\"installed\":{},", sources.is_installed)?;
    if let Some((requests, bytes)) = (sources.requests)() {
        write!(out, "\"requested\":{{\"requests\":{requests},\"bytes\":{bytes}}},")?;
    }
    out.write_str("\"process\":")?;
    match (sources.figures)() {
        Some(figures) => figures.write_json(out, Detail::Classes)?,
        None => out.write_str("null")?,
    }
    out.write_str("}\n")
}

fn write_text(out: &mut Output<'_>, moment: Moment, sources: &Sources) -> fmt::Result {
    let (pid, version) = (process::id(), env!("CARGO_PKG_VERSION"));
    writeln!(out, "obmalloc {version} in process {pid}, at {moment}")?;
    if let Some((requests, bytes)) = (sources.requests)() {
        writeln!(out, "{requests} requests of mem and obj, {bytes} bytes")?;
    }
    (sources.figures)().map_or(Ok(()), |figures| write!(out, "{figures}"))
}
