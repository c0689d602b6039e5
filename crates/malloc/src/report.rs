//! The statistics, as text or as JSON. The README lists the fields of the JSON.

use std::{
    ffi::{CStr, c_char},
    fmt::{self, Write},
    process,
    sync::OnceLock,
};

use host::{
    Decay, Moment, Moments, Output, Place, Switch, UnknownWord, huge_pages, limits, say, switch,
    watch,
};
use raw_mem::Limits;
use thread_heap::Detail;

use crate::{
    debug,
    heap::{self, Figures},
};

/// Names of environment variables, each as a C string and as a Rust string.
///
/// The names begin with `OBMALLOC_MALLOC_`, because our library for CPython reads variables such as
/// `OBMALLOC_STATS` for the same purposes. One process can load that library and also this one,
/// which replaces `malloc`. With different names, the user can set a different output file and
/// different limits for each library.
const PLACE: (&CStr, &str) = (c"OBMALLOC_MALLOC_STATS", "OBMALLOC_MALLOC_STATS");
const MOMENTS: (&CStr, &str) = (c"OBMALLOC_MALLOC_STATS_ON", "OBMALLOC_MALLOC_STATS_ON");
const LIMIT: (&CStr, &str) = (c"OBMALLOC_MALLOC_LIMIT", "OBMALLOC_MALLOC_LIMIT");
const SOFT_LIMIT: (&CStr, &str) = (c"OBMALLOC_MALLOC_SOFT_LIMIT", "OBMALLOC_MALLOC_SOFT_LIMIT");

const VERSION: &str = env!("CARGO_PKG_VERSION");

struct Settings {
    place: Place,
    moments: Moments,
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();

/// Reads the settings of the heap. Must be called before the heap is opened.
///
/// A setting with an unknown value is reported on stderr and ignored.
pub(crate) fn set_up_heap() {
    if is_privileged() {
        return;
    }
    // The first allocation has already read `OBMALLOC`, but could not report an unknown value.
    known(Switch::of(value(c"OBMALLOC")));
    match known(Decay::of(value(c"OBMALLOC_DECAY"))) {
        Some(Decay::After(time)) => heap::set_decay(Some(time)),
        Some(Decay::Never) => heap::set_decay(None),
        Some(Decay::Default) | None => {}
    }
    let huge_pages = huge_pages("OBMALLOC_HUGE_PAGES", value(c"OBMALLOC_HUGE_PAGES"));
    if let Some(huge) = known(huge_pages).filter(|huge| huge.is_on()) {
        heap::use_huge_pages(huge);
    }
    if known(switch("OBMALLOC_TRIM_WHEN_SHORT", value(c"OBMALLOC_TRIM_WHEN_SHORT"))) == Some(true) {
        heap::trim_when_short();
    }
}

/// Returns true if the program has more privileges than its user.
///
/// Such a program must not write files on behalf of its user, so the library ignores all settings.
fn is_privileged() -> bool {
    // SAFETY: `getauxval` reads a constant of the process.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Reads and stores the settings for limits and statistics.
///
/// The library reads these environment variables before `main`, because the program may later
/// change its environment and its current directory. If a variable has an unknown value, the
/// library reports this on stderr and ignores the setting.
pub(crate) fn read_environment() {
    if is_privileged() {
        return;
    }
    let (hard, soft) = ((LIMIT.1, value(LIMIT.0)), (SOFT_LIMIT.1, value(SOFT_LIMIT.0)));
    let limits = limits(hard, soft, |why| say(format_args!("{why}")));
    if limits != Limits::NONE {
        if debug::is_on() {
            let why = "OBMALLOC=debug uses a heap without limits";
            say(format_args!("no limit is in force: {why} (unset one of the two)"));
        }
        heap::set_limits(limits);
    }
    let place = known(Place::of(PLACE.1, value(PLACE.0)));
    let moments = known(Moments::of(MOMENTS.1, value(MOMENTS.0)));
    let (Some(place), Some(moments)) = (place, moments) else { return };
    if matches!(place, Place::Nowhere) {
        return;
    }
    SETTINGS.get_or_init(|| Settings { place, moments });
    // SAFETY: `write_at` neither allocates memory nor waits for a lock.
    unsafe { watch(&moments, write_at) };
}

/// Returns the value of a setting. If the value is unknown, reports that on stderr.
fn known<T>(value: Result<T, UnknownWord<'_>>) -> Option<T> {
    value.inspect_err(|why| say(format_args!("{why}"))).ok()
}

/// Returns the value of a variable, which is empty if the variable is not set.
fn value(name: &CStr) -> &'static [u8] {
    // SAFETY: the function runs before `main`, so no other thread changes the environment.
    let value: *const c_char = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return b"";
    }
    // SAFETY: the value is a C string. It is used only before `main`, so it stays in place.
    unsafe { CStr::from_ptr(value) }.to_bytes()
}

/// Writes the statistics of a normal exit, if the environment specifies a place for them.
pub(crate) fn write() {
    if let Some(Settings { place, moments }) = SETTINGS.get()
        && moments.exit
    {
        let figures = unless_debug(heap::figures);
        place.write(process::id(), |out, is_json| {
            let all = unless_debug(heap::figures_of_process);
            let _ = write_report(out, is_json, Moment::Exit, figures.as_ref(), all.as_ref());
        });
    }
}

/// Writes the statistics of all threads without stopping them. Signal handlers call this function.
fn write_at(moment: Moment) {
    if let Some(Settings { place, .. }) = SETTINGS.get() {
        place.write(process::id(), |out, is_json| {
            let all = unless_debug(heap::try_figures_of_process).flatten();
            let _ = write_report(out, is_json, moment, None, all.as_ref());
        });
    }
}

/// Prints the statistics to stderr.
pub(crate) fn print() {
    let mut stderr = Output::stderr();
    let (heap, all) = (unless_debug(heap::figures), unless_debug(heap::figures_of_process));
    let _ = write_text(&mut stderr, None, heap.as_ref(), all.as_ref());
    stderr.finish();
}

/// Returns the result of `count`, or `None` in debug mode, whose heap does not count its blocks.
fn unless_debug<F>(count: impl FnOnce() -> F) -> Option<F> {
    (!debug::is_on()).then(count)
}

fn write_report(
    out: &mut Output<'_>,
    is_json: bool,
    moment: Moment,
    heap: Option<&Figures>,
    process: Option<&thread_heap::Figures>,
) -> fmt::Result {
    match is_json {
        true => write_json(out, moment, heap, process),
        false => write_text(out, Some(moment), heap, process),
    }
}

fn write_text(
    out: &mut impl Write,
    moment: Option<Moment>,
    heap: Option<&Figures>,
    process: Option<&thread_heap::Figures>,
) -> fmt::Result {
    write!(out, "obmalloc {VERSION} in process {}, as malloc", process::id())?;
    match moment {
        Some(Moment::Exit) | None => writeln!(out)?,
        Some(moment) => writeln!(out, ", at {moment}")?,
    }
    if let Some(Figures { pools, large_blocks, large_bytes }) = heap {
        let (counted, other) = (pools.walked, pools.elsewhere);
        writeln!(out, "heaps: {counted} counted, {other} in use by other threads")?;
        writeln!(out, "large blocks: {large_blocks}, {large_bytes} bytes\n")?;
        write!(out, "{}", pools.total)?;
    }
    match process {
        Some(figures) => write!(out, "\nall threads\n{figures}"),
        None if debug::is_on() => {
            writeln!(out, "\nthe blocks of the debug heap (OBMALLOC=debug) are not counted")
        }
        None => writeln!(out, "\nall threads: a thread was mapping memory"),
    }
}

fn write_json(
    out: &mut impl Write,
    moment: Moment,
    heap: Option<&Figures>,
    process: Option<&thread_heap::Figures>,
) -> fmt::Result {
    let pid = process::id();
    write!(out, "{{\"schema\":2,\"pid\":{pid},\"obmalloc\":\"{VERSION}\",\"moment\":\"{moment}\"")?;
    if let Some(Figures { pools, large_blocks, large_bytes }) = heap {
        let (counted, other) = (pools.walked, pools.elsewhere);
        write!(out, ",\"heaps\":{{\"counted\":{counted},\"other\":{other}}},")?;
        write!(out, "\"large\":{{\"blocks\":{large_blocks},\"bytes\":{large_bytes}}},\"heap\":")?;
        pools.total.write_json(out)?;
    }
    out.write_str(",\"process\":")?;
    match process {
        Some(figures) => figures.write_json(out, Detail::Classes)?,
        None => out.write_str("null")?,
    }
    out.write_str("}\n")
}
