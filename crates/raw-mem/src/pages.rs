//! The system calls that map, unmap and purge arenas.
//!
//! | call | when |
//! | --- | --- |
//! | `mmap` | an arena is mapped, or addresses are reserved for the next ones |
//! | `mprotect` | a reserved arena is used for the first time |
//! | `munmap` | an arena comes back, or a reservation is larger than needed |
//! | `madvise` | pages are purged ([`ArenaSource::purge`](crate::ArenaSource::purge)) |
//!
//! The C library's `malloc` also calls `mmap`, `mprotect` and `munmap`, so a sandbox in which
//! `malloc` works also allows these three calls.

use core::{ptr, ptr::NonNull};

use libc::{c_int, c_void};

use crate::{OsCode, errno};

/// The kinds of access that a new mapping allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Neither reading nor writing. The system does not count pages without access against limits
    /// on data or on committed memory.
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

/// The flags for mappings of private anonymous memory. They include `MAP_NORESERVE` where the flag
/// exists, so that the system reserves no swap space for the mapping.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
const PRIVATE: c_int = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE;
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
const PRIVATE: c_int = libc::MAP_PRIVATE | libc::MAP_ANON;

/// Maps `bytes` bytes of zeroed pages. The system places the pages at the address `hint`, unless
/// something else is mapped there. If `hint` is 0, the system chooses the address.
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
    // SAFETY: the caller has mapped the pages (contract of this function). Adding access to a page
    // does not invalidate its contents or any pointer to it.
    outcome(unsafe { libc::mprotect(to_c(start), bytes, Access::ReadWrite.protection()) })
}

/// Unmaps the `bytes` bytes from `start`. If the system call fails, the range stays mapped.
///
/// # Safety
///
/// - The range must consist of whole pages that the caller has mapped.
/// - If the call succeeds, nothing may access these pages any more.
pub(crate) unsafe fn unmap(start: NonNull<u8>, bytes: usize) -> Result<(), OsCode> {
    refuse_on_demand()?;
    // SAFETY: the caller has mapped the pages, and nothing uses them any more (contract of this
    // function).
    outcome(unsafe { libc::munmap(to_c(start), bytes) })
}

/// Returns the memory of the `bytes` bytes from `start` to the system. The pages stay mapped and
/// read as zero afterwards.
///
/// There are two ways to do this: calling `madvise`, or mapping new pages over the range with
/// `MAP_FIXED`. We use `madvise`, although a sandbox may forbid it, because `MAP_FIXED` has two
/// drawbacks. First, kernels before 6.12 unmap the old range before they map the new pages. If the
/// second step fails, the range is no longer mapped at all. Second, in a forked child the kernel
/// cannot merge the new mapping with the adjacent mappings that the child inherited. Each purge
/// would then split a mapping, until the child reaches the limit on the number of its mappings.
///
/// # Safety
///
/// - The range must consist of whole pages that the caller has mapped.
/// - Nothing may rely on the contents of the range.
pub(crate) unsafe fn purge(start: NonNull<u8>, bytes: usize) -> Result<(), OsCode> {
    refuse_on_demand()?;
    // SAFETY: the caller has mapped the pages, and nothing relies on their contents (contract of
    // this function).
    outcome(unsafe { libc::madvise(to_c(start), bytes, libc::MADV_DONTNEED) })
}

/// Returns the size of a page in bytes. The C library keeps this number in memory, so no system
/// call is needed.
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

/// Returns the error of the system call that has just failed.
fn last() -> OsCode {
    OsCode(errno::get())
}

/// Does nothing outside of this crate's tests. In the tests, another function of the same name
/// replaces this one. It can return an error before a system call is made, as if the system had
/// refused the call.
#[cfg(not(test))]
#[inline(always)]
fn refuse_on_demand() -> Result<(), OsCode> {
    Ok(())
}

#[cfg(test)]
use refusals::refuse_on_demand;

/// Simulated refusals by the operating system, for tests.
#[cfg(test)]
pub(crate) mod refusals {
    use std::cell::Cell;

    use crate::{OsCode, errno};

    /// Which system calls of the current thread are refused.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Plan {
        Never,
        /// The call with this number, counted from 1.
        Nth(usize),
        /// Every call whose number, counted from 1, is a multiple of this.
        EachNth(usize),
    }

    thread_local! {
        static STATE: Cell<(Plan, usize)> = const { Cell::new((Plan::Never, 0)) };
    }

    /// Sets the plan that decides which system calls of this thread are refused from now on, and
    /// restarts the count of the calls at 1.
    pub(crate) fn refuse(plan: Plan) {
        STATE.set((plan, 0));
    }

    /// Returns the number of system calls that this thread has made since the plan was set.
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
