//! Debug hooks over the heap, in place of CPython's own.
//!
//! Our hooks use the same block layout as CPython's hooks. They can therefore free blocks that
//! CPython's hooks allocated earlier.

use std::{
    ffi::{CStr, c_char},
    fmt::{self, Write},
    process,
    sync::OnceLock,
};

use allocator_api::{
    CAllocator, Domain, VTable,
    hooks::{Debug, Host, Misuse, Operation},
    raw_mem::Output,
};

use crate::{
    abi::CPython,
    domains::Server,
    loader::{clear_error, symbol},
};

type FatalErrorFunc = unsafe extern "C" fn(function: *const c_char, message: *const c_char);
type FatalError = unsafe extern "C" fn(message: *const c_char);

/// The CPython of this process, and its functions that end the process.
struct Program {
    python: CPython,
    /// CPython 3.9 and later.
    fatal_error_func: Option<FatalErrorFunc>,
    fatal_error: Option<FatalError>,
}

static PROGRAM: OnceLock<Program> = OnceLock::new();

static HOSTS: [InCPython; 3] =
    [InCPython(Domain::Raw), InCPython(Domain::Mem), InCPython(Domain::Obj)];

/// Wraps the allocators of the domains raw, mem and obj in debug hooks, which are never dropped.
///
/// # Safety
///
/// - Each vtable must be one that CPython could use for its domain, as long as the process runs.
pub(crate) unsafe fn hooks(python: &CPython, below: [VTable; 3]) -> [VTable; 3] {
    PROGRAM.get_or_init(|| Program::new(*python));
    Domain::ALL.map(|domain| {
        let host: &'static InCPython = &HOSTS[domain.index()];
        // SAFETY: the vtable suits the domain (contract of this function).
        let below = unsafe { CAllocator::new(below[domain.index()]) };
        VTable::of(Box::leak(Box::new(Debug::new(below, domain).with_host(host))))
    })
}

impl Program {
    fn new(python: CPython) -> Self {
        let everywhere = libc::RTLD_DEFAULT;
        // SAFETY: the C declarations of CPython have these types.
        let found = unsafe {
            Self {
                python,
                fatal_error_func: symbol(everywhere, c"_Py_FatalErrorFunc"),
                fatal_error: symbol(everywhere, c"Py_FatalError"),
            }
        };
        clear_error();
        found
    }
}

/// The environment of a debug hook: a CPython that uses the hook for this domain.
struct InCPython(Domain);

impl InCPython {
    /// Returns true if tracemalloc has put its hook over ours.
    fn is_traced(&self, python: &CPython) -> bool {
        Server::of(&python.allocator(self.0), python) == Server::Hook
    }
}

impl Host for InCPython {
    fn may_call(&self) -> bool {
        self.0 == Domain::Raw || PROGRAM.get().is_none_or(|program| program.python.holds_gil())
    }

    /// Writes CPython's hint that tracemalloc can show where a block was allocated.
    ///
    /// Writes nothing if tracemalloc already traces blocks. CPython exports no function that reads
    /// the trace of a block without allocating objects.
    fn write_place(&self, out: &mut Output<'_>, _ptr: *const u8) {
        if PROGRAM.get().is_some_and(|program| !self.is_traced(&program.python)) {
            let _ = out
                .write_str("Enable tracemalloc to get the memory block allocation traceback\n\n");
        }
    }

    fn end(&self, operation: Operation, misuse: Misuse) -> ! {
        let mut message = Message::default();
        let _ = write!(message, "{misuse}");
        let function = operation.cpython_function(misuse);
        match PROGRAM.get() {
            // SAFETY: both texts are C strings, and CPython does not return.
            Some(Program { fatal_error_func: Some(end), .. }) => unsafe {
                end(function.as_ptr(), message.as_c().as_ptr());
            },
            // SAFETY: the text is a C string, and CPython does not return.
            Some(Program { fatal_error: Some(end), .. }) => unsafe {
                end(message.as_c().as_ptr());
            },
            _ => {}
        }
        process::abort()
    }
}

/// A short C string in a fixed buffer. Text that does not fit is truncated.
struct Message {
    bytes: [u8; 128],
    len: usize,
}

impl Default for Message {
    fn default() -> Self {
        Self { bytes: [0; 128], len: 0 }
    }
}

impl Message {
    fn as_c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

impl Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes().take(self.bytes.len() - 1 - self.len) {
            self.bytes[self.len] = byte;
            self.len += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_off() {
        let mut message = Message::default();
        write!(message, "{}{}", "x".repeat(100), "y".repeat(100)).unwrap();
        assert_eq!(
            message.as_c().to_bytes(),
            format!("{}{}", "x".repeat(100), "y".repeat(27)).as_bytes()
        );
    }
}
