//! The place in a program at which a block was allocated.

#![forbid(unsafe_code)]

use std::{fmt, sync::Arc};

/// The place of an allocation: the addresses of the calls that led to it, the last call first.
///
/// `Display` writes a backtrace of the allocation: one line for each function call, the innermost
/// call first. A line contains the name of the function or, if the name is unknown, an address. The
/// source file and line follow if they are known. Calls inside the allocator are left out. Without
/// the `backtrace` feature, no calls are stored, so `Display` writes `unknown`.
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
    const OWN: usize = 14;

    /// The largest number of calls that a place stores.
    pub(crate) const MOST: usize = 48;

    /// Prefixes of the names of functions that belong to the allocation rather than to the program.
    const FUNCTIONS: [&str; 13] = [
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
        "raw_mem::unwinding::",
    ];

    /// Parts of the paths of files with such functions.
    ///
    /// If a program has only line tables as debug information, its function names lack the path of
    /// the module.
    const FILES: [&str; 7] = [
        "/backtrace-0.",
        "/backtrace/src/backtrace/",
        "/library/alloc/src/alloc.rs",
        "/library/alloc/src/boxed.rs",
        "/library/alloc/src/raw_vec",
        "/library/core/src/ops/function.rs",
        "/raw-mem/src/unwinding.rs",
    ];

    /// The files of this crate with such functions, in the folder `src`.
    const OUR_FILES: [&str; 5] =
        ["counted.rs", "global.rs", "hooks/trace.rs", "hooks/trace/inside.rs", THIS_FILE];

    const THIS_FILE: &str = "hooks/trace/place.rs";

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
        let calls: Vec<_> = untraced(|| calls.iter().map(|call| Call::at(*call)).collect());
        let first = calls.iter().position(|call| !call.is_own).unwrap_or(0);
        for Call { text, .. } in &calls[first..] {
            writeln!(f, "    {text}")?;
        }
        Ok(())
    }

    struct Call {
        /// The name of the function, its file and the line, as far as they are known.
        text: String,
        /// True if the function belongs to the allocation rather than to the program.
        is_own: bool,
    }

    impl Call {
        fn at(address: usize) -> Self {
            let mut call = Self { text: format!("{address:#x}"), is_own: false };
            // A return address may belong to the source line after the call.
            let inside = std::ptr::without_provenance_mut(address.saturating_sub(1));
            backtrace::resolve(inside, |symbol| {
                if let Some(function) = symbol.name() {
                    call.note_function(format!("{function:#}"));
                }
                if let (Some(file), Some(line)) = (symbol.filename(), symbol.lineno()) {
                    call.note_file(&file.to_string_lossy(), line);
                }
            });
            call
        }

        fn note_function(&mut self, name: String) {
            self.is_own = is_own_function(&name);
            self.text = name;
        }

        fn note_file(&mut self, path: &str, line: u32) {
            self.is_own |= is_own_file(path);
            self.text = format!("{} ({path}:{line})", self.text);
        }
    }

    fn is_own_function(name: &str) -> bool {
        let name = name.trim_start_matches(['<', '&']);
        FUNCTIONS.iter().any(|own| name.starts_with(own))
    }

    fn is_own_file(path: &str) -> bool {
        // A folder without a name of its own could be one of the program.
        let folder =
            file!().strip_suffix(THIS_FILE).filter(|folder| folder.contains("allocator-api"));
        let is_ours = folder
            .and_then(|folder| path.rsplit_once(folder))
            .is_some_and(|(_, file)| OUR_FILES.contains(&file));
        is_ours || FILES.iter().any(|part| path.contains(part))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn calls_inside_the_allocator_are_recognised_by_name_or_by_file() {
            assert!(is_own_function("alloc::alloc::alloc"));
            assert!(is_own_function("<allocator_api::global::Global<A> as GlobalAlloc>::alloc"));
            assert!(!is_own_function("my_allocator_api::make"));
            let folder = "/home/me/obmalloc/crates/allocator-api/src/";
            for own in ["global.rs", "hooks/trace/place.rs"] {
                assert!(is_own_file(&format!("{folder}{own}")), "{own}");
            }
            assert!(is_own_file("/rustc/5980/library/alloc/src/raw_vec/mod.rs"));
            for other in ["hooks/trace/tests.rs", "lib.rs"] {
                assert!(!is_own_file(&format!("{folder}{other}")), "{other}");
            }
            assert!(!is_own_file("/home/me/program/src/global.rs"));
            assert!(!is_own_file("/home/me/program/src/backtrace/mod.rs"));
        }

        #[test]
        fn a_name_or_a_file_alone_marks_a_call_inside_the_allocator() {
            let call = |name: &str, path| {
                let mut call = Call { text: String::new(), is_own: false };
                call.note_function(name.into());
                call.note_file(path, 7);
                (call.text, call.is_own)
            };
            let (ours, theirs) = ("/rustc/5980/library/alloc/src/raw_vec/mod.rs", "/me/main.rs");
            assert_eq!(call("main", theirs), ("main (/me/main.rs:7)".into(), false));
            assert!(call("main", ours).1 && call("alloc::alloc::alloc", theirs).1);
        }
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
