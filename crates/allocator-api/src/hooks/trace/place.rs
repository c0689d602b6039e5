//! The place in a program at which a block was allocated.

#![forbid(unsafe_code)]

use std::{fmt, sync::Arc};

/// The place of an allocation: the addresses of the calls that led to it, the last call first.
///
/// `Display` writes one line per call.
///
/// With the `backtrace` feature, each line names the function if possible, and calls inside the
/// allocator are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(pub(super) Arc<[usize]>);

impl Place {
    /// Returns the addresses of the calls. The slice is empty if the place is unknown.
    pub fn calls(&self) -> &[usize] {
        &self.0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("    unknown\n");
        }
        calls::write(f, &self.0)
    }
}

pub(super) use calls::{MOST, capture};

#[cfg(feature = "backtrace")]
mod calls {
    use std::fmt;

    use super::super::inside::untraced;

    /// The largest number of calls inside the allocator and the standard library that can precede
    /// the program's calls.
    const OWN: usize = 12;

    /// The largest number of calls that a place stores.
    pub(crate) const MOST: usize = 48;

    /// Prefixes of the names of functions that belong to the allocation rather than to the program.
    const ALLOCATING: [&str; 12] = [
        "allocator_api::counted::",
        "allocator_api::global::",
        "allocator_api::hooks::trace::Trace",
        "allocator_api::hooks::trace::inside::",
        "allocator_api::hooks::trace::place::",
        "backtrace::",
        "__rust",
        "__rustc",
        "alloc::alloc::",
        "alloc::raw_vec::",
        "alloc::boxed::",
        "core::ops::function::",
    ];

    /// Stores the addresses of the innermost calls of this thread, and returns their number.
    ///
    /// Stores `frames` calls and up to `OWN` more, because the innermost calls are inside the
    /// allocator.
    pub(crate) fn capture(frames: usize, calls: &mut [usize; MOST]) -> usize {
        let wanted = if frames == 0 { 0 } else { (frames + OWN).min(MOST) };
        let mut found = 0;
        if wanted > 0 {
            backtrace::trace(|frame| {
                calls[found] = frame.ip().addr();
                found += 1;
                found < wanted
            });
        }
        found
    }

    /// Writes the names of the calls, starting with the first one outside the allocator.
    pub(crate) fn write(f: &mut fmt::Formatter<'_>, calls: &[usize]) -> fmt::Result {
        // Looking up names loads the debug information, which takes many MiB that we must not
        // trace.
        let names: Vec<_> = untraced(|| calls.iter().map(|call| name(*call)).collect());
        let is_own = |name: &String| {
            let name = name.trim_start_matches(['<', '&']);
            ALLOCATING.iter().any(|own| name.starts_with(own))
        };
        let first = names.iter().position(|name| !is_own(name)).unwrap_or(0);
        for name in &names[first..] {
            writeln!(f, "    {name}")?;
        }
        Ok(())
    }

    fn name(call: usize) -> String {
        let mut name = format!("{call:#x}");
        // `call` is a return address. The instruction there may belong to the next source line.
        let inside = std::ptr::without_provenance_mut(call.saturating_sub(1));
        backtrace::resolve(inside, |symbol| {
            if let Some(function) = symbol.name() {
                name = format!("{function:#}");
            }
            if let (Some(file), Some(line)) = (symbol.filename(), symbol.lineno()) {
                name = format!("{name} ({}:{line})", file.display());
            }
        });
        name
    }
}

/// Without a way to walk the stack, all places are unknown.
#[cfg(not(feature = "backtrace"))]
mod calls {
    use std::fmt;

    pub(crate) const MOST: usize = 0;

    pub(crate) fn capture(_frames: usize, _calls: &mut [usize; MOST]) -> usize {
        0
    }

    pub(crate) fn write(f: &mut fmt::Formatter<'_>, calls: &[usize]) -> fmt::Result {
        calls.iter().try_for_each(|call| writeln!(f, "    {call:#x}"))
    }
}
