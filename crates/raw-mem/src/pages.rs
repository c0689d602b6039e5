//! The system calls through which arenas come and go.
//!
//! | call | when |
//! | --- | --- |
//! | `mmap` | an arena is mapped, or addresses are reserved for the next ones |
//! | `mprotect` | a reserved arena is used for the first time |
//! | `munmap` | an arena comes back, or a reservation is larger than needed |
//! | `madvise` | pages are purged ([`ArenaSource::purge`](crate::ArenaSource::purge)) |
//!
//! The C library's `malloc` also makes the first three, so a sandbox that allows `malloc` allows
//! them.

use core::{ptr, ptr::NonNull};

use libc::{c_int, c_void};

use crate::{OsCode, errno};

/// What a new mapping allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing. Limits on data and on commitment do not count such pages.
    Reserved,
    /// Reading and writing.
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

/// Private anonymous memory. On systems with `MAP_NORESERVE`, no swap space is reserved for it.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
const PRIVATE: c_int = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE;
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
const PRIVATE: c_int = libc::MAP_PRIVATE | libc::MAP_ANON;

/// Maps `bytes` of zeroed pages, at `hint` if nothing else is mapped there. A hint of 0 leaves the
/// place to the system.
pub(crate) fn map(hint: usize, bytes: usize, access: Access) -> Result<NonNull<u8>, OsCode> {
    refuse_on_demand()?;
    let hint = ptr::without_provenance_mut(hint);
    // SAFETY: without MAP_FIXED, a new mapping replaces no other.
    let start = unsafe { libc::mmap(hint, bytes, access.protection(), PRIVATE, -1, 0) };
    if start == libc::MAP_FAILED { Err(last()) } else { NonNull::new(start.cast()).ok_or(last()) }
}

/// Makes `bytes` of reserved pages from `start` readable and writable.
///
/// # Safety
///
/// The range must consist of whole pages that the caller has mapped.
pub(crate) unsafe fn make_writable(start: NonNull<u8>, bytes: usize) -> Result<(), OsCode> {
    refuse_on_demand()?;
    // SAFETY: the caller owns the pages, and adding access to them invalidates nothing.
    outcome(unsafe { libc::mprotect(to_c(start), bytes, Access::ReadWrite.protection()) })
}

/// Unmaps `bytes` from `start`. On an error the range stays mapped.
///
/// # Safety
///
/// - The range must consist of whole pages that the caller has mapped.
/// - On success nothing may access them any more.
pub(crate) unsafe fn unmap(start: NonNull<u8>, bytes: usize) -> Result<(), OsCode> {
    refuse_on_demand()?;
    // SAFETY: the caller owns the pages and gives them up.
    outcome(unsafe { libc::munmap(to_c(start), bytes) })
}

/// Gives the memory of `bytes` from `start` back to the system. The pages read as zero afterwards.
///
/// A fixed mapping over the range would need no call that a sandbox may forbid. But kernels before
/// 6.12 unmap the range before they can fail, and a forked child cannot join the new mapping with
/// the ones it inherited, so it would run out of mappings.
///
/// # Safety
///
/// - The range must consist of whole pages that the caller has mapped.
/// - Nothing may rely on its contents.
pub(crate) unsafe fn purge(start: NonNull<u8>, bytes: usize) -> Result<(), OsCode> {
    refuse_on_demand()?;
    // SAFETY: the caller owns the pages and gives up their contents.
    outcome(unsafe { libc::madvise(to_c(start), bytes, libc::MADV_DONTNEED) })
}

/// The bytes of a page. The C library knows them, so this is no system call.
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

/// The error of the call that has just failed.
fn last() -> OsCode {
    OsCode(errno::get())
}

/// Does nothing in a build. In the tests of this crate it may refuse a call before it is made.
#[cfg(not(test))]
#[inline(always)]
fn refuse_on_demand() -> Result<(), OsCode> {
    Ok(())
}

#[cfg(test)]
use refusals::refuse_on_demand;

/// Refusals by the system, for tests.
#[cfg(test)]
pub(crate) mod refusals {
    use std::cell::Cell;

    use crate::{OsCode, errno};

    /// Which calls of this thread are refused.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Plan {
        Never,
        /// The call with this number, counted from 1.
        Nth(usize),
        /// Every call whose number is a multiple of this.
        EachNth(usize),
    }

    thread_local! {
        static STATE: Cell<(Plan, usize)> = const { Cell::new((Plan::Never, 0)) };
    }

    /// Makes a plan for the calls that this thread makes from now on.
    pub(crate) fn refuse(plan: Plan) {
        STATE.set((plan, 0));
    }

    /// The number of calls since the plan was made.
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
