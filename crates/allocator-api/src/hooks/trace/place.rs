//! Where in a program a block was allocated.

#![forbid(unsafe_code)]

use std::{fmt, sync::Arc};

/// The place of an allocation: the addresses of the calls that led to it, the last call first.
///
/// Its text has one line for each call. Names need the feature `backtrace`. If names are found, the
/// calls inside of the allocator are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(pub(super) Arc<[usize]>);

impl Place {
    /// Returns the addresses of the calls. Empty if no places were asked for.
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

    /// The number of calls inside of the allocator and of the standard library that can come first.
    const OWN: usize = 12;

    /// The largest number of calls of a place.
    pub(crate) const MOST: usize = 48;

    /// The names of functions that are a part of allocating.
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

    /// Stores the addresses of at most `frames` calls outside of the allocator.
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

    /// Writes the names of the calls, from the first one on that is not a part of allocating.
    pub(crate) fn write(f: &mut fmt::Formatter<'_>, calls: &[usize]) -> fmt::Result {
        // The names come from the debug information, which takes many MiB once it was read.
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
        // The address is that of the next instruction, which may belong to another line.
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
