//! The statistics, as text or as JSON. The README lists the fields of the JSON.

use std::{
    ffi::CStr,
    fmt::{self, Write},
    process,
    sync::OnceLock,
};

use crate::{
    heap::{self, Figures},
    output::{Output, errno, say},
    place::{Path, Place},
};

/// The variable. It differs from that of the library for CPython, which may be in the same process
/// and would write to the same file.
const VARIABLE: &CStr = c"OBMALLOC_MALLOC_STATS";

const VERSION: &str = env!("CARGO_PKG_VERSION");

static PLACE: OnceLock<Place> = OnceLock::new();

/// Remembers where the statistics go. The program may change its environment and directory later.
pub(crate) fn read_environment() {
    // SAFETY: `getauxval` reads a constant of the process.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        // A program with more privileges than its user must not write files for its user.
        return;
    }
    // SAFETY: this runs before `main`, so no other thread changes the environment.
    let value = unsafe { libc::getenv(VARIABLE.as_ptr()) };
    if !value.is_null() {
        // SAFETY: the value is a C string, which stays in place meanwhile.
        let value = unsafe { CStr::from_ptr(value) };
        PLACE.get_or_init(|| Place::of(value.to_bytes()));
    }
}

/// Writes the statistics to the place that the environment named, if any.
pub(crate) fn write() {
    match PLACE.get() {
        None | Some(Place::Nowhere) => {}
        Some(Place::Stderr) => print(),
        Some(Place::File(path)) => write_file(path),
    }
}

/// Prints the statistics to stderr.
pub(crate) fn print() {
    let mut stderr = Output::STDERR;
    let _ = write_text(&mut stderr, process::id(), &heap::figures());
    stderr.finish();
}

fn write_file(path: &Path) {
    let pid = process::id();
    let name = path.of_process(pid);
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
    // SAFETY: the path is a C string.
    let fd = unsafe { libc::open(name.as_c(), flags, 0o666) };
    let mut is_written = fd >= 0;
    if is_written {
        let (mut file, figures) = (Output::new(fd), heap::figures());
        let _ = match path.is_json() {
            true => write_json(&mut file, pid, &figures),
            false => write_text(&mut file, pid, &figures),
        };
        is_written = file.finish();
    }
    if !is_written {
        say(format_args!("cannot write the statistics to {name}: error {}", errno()));
    }
    if fd >= 0 {
        // SAFETY: the descriptor was opened above and is used nowhere else.
        unsafe { libc::close(fd) };
    }
}

fn write_text(out: &mut impl Write, pid: u32, figures: &Figures) -> fmt::Result {
    let Figures { pools, large_blocks, large_bytes } = figures;
    writeln!(out, "obmalloc {VERSION} in process {pid}, as malloc")?;
    writeln!(out, "heaps: {} counted, {} in use by other threads", pools.walked, pools.elsewhere)?;
    writeln!(out, "large blocks: {large_blocks}, {large_bytes} bytes\n")?;
    write!(out, "{}", pools.total)
}

fn write_json(out: &mut impl Write, pid: u32, figures: &Figures) -> fmt::Result {
    let Figures { pools, large_blocks, large_bytes } = figures;
    write!(out, "{{\"schema\":1,\"pid\":{pid},\"obmalloc\":\"{VERSION}\",")?;
    write!(out, "\"heaps\":{{\"counted\":{},\"other\":{}}},", pools.walked, pools.elsewhere)?;
    write!(out, "\"large\":{{\"blocks\":{large_blocks},\"bytes\":{large_bytes}}},\"heap\":")?;
    pools.total.write_json(out)?;
    out.write_str("}\n")
}
