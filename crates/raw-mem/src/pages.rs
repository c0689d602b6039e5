//! The system calls that map, unmap and purge arenas.

use core::{ptr, ptr::NonNull};

use libc::{c_int, c_void};

use crate::{OsCode, errno};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// No access. Such pages do not count against limits on data or on committed memory.
    Reserved,
    ReadWrite,
}

impl Access {
    fn protection(self) -> c_int {
        match self {
            Self::Reserved => libc::PROT_NONE,
            Self::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        }
    }
}

/// The flags of private anonymous mappings, which reserve no swap space where possible.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
const PRIVATE: c_int = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE;
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
const PRIVATE: c_int = libc::MAP_PRIVATE | libc::MAP_ANON;

/// Maps `bytes` bytes of zeroed pages, at the address `hint` if it is not 0 and still free.
pub(crate) fn map(hint: usize, bytes: usize, access: Access) -> Result<NonNull<u8>, OsCode> {
    refuse_on_demand()?;
    let hint = ptr::without_provenance_mut(hint);
    // SAFETY: without MAP_FIXED, the system never replaces an existing mapping.
    let start = unsafe { libc::mmap(hint, bytes, access.protection(), PRIVATE, -1, 0) };
    if start == libc::MAP_FAILED { Err(last()) } else { NonNull::new(start.cast()).ok_or(last()) }
}

/// Makes `bytes` bytes of reserved pages, beginning at `start`, readable and writable.
///
/// # Safety
///
/// The range must consist of whole pages that the caller has mapped.
pub(crate) unsafe fn make_writable(start: NonNull<u8>, bytes: usize) -> Result<(), OsCode> {
    refuse_on_demand()?;
    // SAFETY: the caller has mapped the pages, and adding access does not change their contents.
    outcome(unsafe { libc::mprotect(to_c(start), bytes, Access::ReadWrite.protection()) })
}

/// Unmaps `bytes` bytes from `start`. The range stays mapped if the system call fails.
///
/// # Safety
///
/// - The range must consist of whole pages that the caller has mapped.
/// - If the call succeeds, nothing may access these pages afterwards.
pub(crate) unsafe fn unmap(start: NonNull<u8>, bytes: usize) -> Result<(), OsCode> {
    refuse_on_demand()?;
    // SAFETY: the caller mapped the pages, and nothing uses them (contract of `unmap`).
    outcome(unsafe { libc::munmap(to_c(start), bytes) })
}

/// Returns the memory of `bytes` bytes from `start` to the system.
///
/// The pages stay mapped and read as zero afterwards.
///
/// Mapping new pages with `MAP_FIXED` instead could lose the range on Linux before 6.12.
///
/// # Safety
///
/// - The range must consist of whole pages that the caller has mapped.
/// - Nothing may rely on its contents.
pub(crate) unsafe fn purge(start: NonNull<u8>, bytes: usize) -> Result<(), OsCode> {
    refuse_on_demand()?;
    // SAFETY: the caller mapped the pages, and their contents may go (contract of `purge`).
    outcome(unsafe { libc::madvise(to_c(start), bytes, libc::MADV_DONTNEED) })
}

/// Returns the size of a page in bytes, without a system call.
pub(crate) fn page_size() -> usize {
    // SAFETY: sysconf reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

fn to_c(start: NonNull<u8>) -> *mut c_void {
    start.as_ptr().cast()
}

fn outcome(result: c_int) -> Result<(), OsCode> {
    if result == 0 { Ok(()) } else { Err(last()) }
}

fn last() -> OsCode {
    OsCode(errno::get())
}

/// Does nothing. In tests, a replacement simulates failing system calls.
#[cfg(not(test))]
#[inline(always)]
fn refuse_on_demand() -> Result<(), OsCode> {
    Ok(())
}

#[cfg(test)]
use refusals::refuse_on_demand;

#[cfg(test)]
pub(crate) mod refusals {
    use std::cell::Cell;

    use crate::{OsCode, errno};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Plan {
        Never,
        Nth(usize),
        EachNth(usize),
    }

    thread_local! {
        static STATE: Cell<(Plan, usize)> = const { Cell::new((Plan::Never, 0)) };
    }

    /// Sets the plan of the current thread and restarts its count of system calls.
    pub(crate) fn refuse(plan: Plan) {
        STATE.set((plan, 0));
    }

    pub(crate) fn calls() -> usize {
        STATE.get().1
    }

    pub(super) fn refuse_on_demand() -> Result<(), OsCode> {
        let (plan, calls) = STATE.get();
        let call = calls + 1;
        STATE.set((plan, call));
        let refused = match plan {
            Plan::Never => false,
            Plan::Nth(nth) => call == nth,
            Plan::EachNth(nth) => call.is_multiple_of(nth),
        };
        if !refused {
            return Ok(());
        }
        errno::set(libc::ENOMEM);
        Err(OsCode(libc::ENOMEM))
    }
}
