//! The description of a block on stderr, worded like CPython's `_PyObject_DebugDumpAddress`.
//!
//! Unlike CPython, we ask the system whether memory is readable, so the report never crashes.

use core::fmt::{self, Write};

use raw_mem::{Output, is_readable};

use super::{
    block::{Block, HEADER},
    host::{Host, Letter},
    style::{Style, WORD},
};

/// The number of bytes that are shown at each end of a block.
const SHOWN: usize = 8;

/// Describes the block at `block`, which may be corrupted or not a block at all.
pub(super) fn describe(block: Block, style: Style, host: &dyn Host) {
    let mut out = Output::stderr();
    // Writing to stderr reports no errors.
    let _ = write_block(&mut out, block, style);
    let _ = out.write_char('\n');
    host.write_place(&mut out, block.start().as_ptr());
}

fn write_block(out: &mut impl Write, block: Block, style: Style) -> fmt::Result {
    write!(out, "Debug memory block at address p={:p}:", block.start())?;
    if !is_readable(block.header(), HEADER) {
        return writeln!(out, " cannot be read");
    }
    // SAFETY: the header is readable.
    let (size, letter, leading) = unsafe { (block.size(), block.letter(), block.leading()) };
    writeln!(out, " API '{}'", Letter(letter))?;
    writeln!(out, "    {size} bytes originally requested")?;
    write!(out, "    The {} pad bytes at p-{} are ", WORD - 1, WORD - 1)?;
    if !write_guards(out, &leading, style, |at| Place::Before(WORD - 1 - at))? {
        out.write_str(
            "    Because memory is corrupted at the start, the count of bytes requested\n       \
             may be bogus, and the trailing pad bytes may be at another place.\n",
        )?;
    }
    write_tail(out, block, size, style)
}

fn write_tail(out: &mut impl Write, block: Block, size: usize, style: Style) -> fmt::Result {
    let tail = block.tail(size);
    write!(out, "    The {WORD} pad bytes at tail={tail:p} are ")?;
    let is_in_address_space = tail.addr() >= block.start().addr().get();
    if !is_in_address_space || !is_readable(tail, style.trailer()) {
        return writeln!(out, "not readable.");
    }
    // SAFETY: the trailer is readable.
    write_guards(out, &unsafe { block.trailing(size) }, style, Place::Behind)?;
    if style.has_serials {
        // SAFETY: the trailer is readable, and ends with the serial number.
        let serial = unsafe { block.serial(size) };
        writeln!(out, "    The block was made by call #{serial} to debug malloc/realloc.")?;
    }
    write_data(out, block, size)
}

#[derive(Clone, Copy)]
enum Place {
    Before(usize),
    Behind(usize),
}

/// Writes that all guards are intact, or writes each guard. Returns true if they are intact.
fn write_guards(
    out: &mut impl Write,
    guards: &[u8],
    style: Style,
    place: impl Fn(usize) -> Place,
) -> Result<bool, fmt::Error> {
    if guards.iter().all(|guard| *guard == style.forbidden) {
        out.write_str("FORBIDDENBYTE, as expected.\n")?;
        return Ok(true);
    }
    writeln!(out, "not all FORBIDDENBYTE (0x{:02x}):", style.forbidden)?;
    for (at, guard) in guards.iter().enumerate() {
        match place(at) {
            Place::Before(distance) => write!(out, "        at p-{distance}: 0x{guard:02x}")?,
            Place::Behind(distance) => write!(out, "        at tail+{distance}: 0x{guard:02x}")?,
        }
        out.write_str(if *guard == style.forbidden { "\n" } else { " *** OUCH\n" })?;
    }
    Ok(false)
}

/// Writes the first and the last bytes of the block.
fn write_data(out: &mut impl Write, block: Block, size: usize) -> fmt::Result {
    let start = block.start().as_ptr().cast_const();
    let first = size.min(SHOWN);
    let last = (size - first).min(SHOWN);
    let behind = start.wrapping_add(size - last);
    if size == 0 || !is_readable(start, first) || !is_readable(behind, last) {
        return Ok(());
    }
    out.write_str("    Data at p:")?;
    // SAFETY: these bytes are readable.
    unsafe { write_bytes(out, start, first)? };
    if size > 2 * SHOWN {
        out.write_str(" ...")?;
    }
    // SAFETY: these bytes are readable.
    unsafe { write_bytes(out, behind, last)? };
    out.write_char('\n')
}

/// # Safety
///
/// - The `len` bytes at `start` must be readable.
unsafe fn write_bytes(out: &mut impl Write, start: *const u8, len: usize) -> fmt::Result {
    (0..len).try_for_each(|at| {
        // SAFETY: the byte is readable (contract). To the compiler it may be uninitialised, but a
        // volatile read returns the byte that is in memory.
        let byte = unsafe { start.add(at).read_volatile() };
        write!(out, " {byte:02x}")
    })
}
