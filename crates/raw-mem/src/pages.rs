//! The system calls through which arenas come and go.
//!
//! | call | when |
//! | --- | --- |
//! | `mmap` | an arena is mapped, or addresses are reserved for the next ones |
//! | `mprotect` | a reserved arena is used for the first time |
//! | `munmap` | an arena comes back, or a reservation is larger than needed |
//! | `madvise` | only for [`ArenaSource::advise`](crate::ArenaSource::advise) and huge pages |
//! | `prctl` | only after [`ArenaSource::name`](crate::ArenaSource::name) |
//!
//! The C library's `malloc` needs the first three too, so a sandbox that allows `malloc` allows
//! them.

use core::{ffi::CStr, ptr, ptr::NonNull};

use libc::{c_int, c_void};

use crate::{Advice, OsCode, errno};

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

/// Gives optional advice about `bytes` from `start`.
///
/// # Safety
///
/// - The range must consist of whole pages that the caller has mapped.
/// - With [`Advice::DontNeed`] and [`Advice::Free`], nothing may rely on its contents.
pub(crate) unsafe fn advise(
    start: NonNull<u8>,
    bytes: usize,
    advice: Advice,
) -> Result<(), OsCode> {
    let code = match advice {
        // A fixed mapping would need no call that a sandbox may forbid. But kernels before 6.12 unmap
        // the range before they can fail, and a forked child cannot join the new mapping with what
        // it inherited, so it would run out of mappings.
        Advice::DontNeed => libc::MADV_DONTNEED,
        Advice::Free => libc::MADV_FREE,
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Advice::HugePage => libc::MADV_HUGEPAGE,
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        Advice::HugePage => return Err(OsCode(libc::ENOSYS)),
    };
    refuse_on_demand()?;
    // SAFETY: the caller owns the pages, and their contents may go where the advice says so.
    outcome(unsafe { libc::madvise(to_c(start), bytes, code) })
}

/// Shows `name` beside the mapping of `bytes` from `start`, in the system's list of mappings.
/// Returns false if the system has no such names.
///
/// # Safety
///
/// The range must consist of whole pages that the caller has mapped.
pub(crate) unsafe fn name(start: NonNull<u8>, bytes: usize, name: &'static CStr) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let (option, what) = (libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME);
        // SAFETY: the caller owns the range, and the name is a C string of static lifetime.
        refuse_on_demand().is_ok()
            && unsafe { libc::prctl(option, what, to_c(start), bytes, name.as_ptr()) } == 0
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (start, bytes, name);
        false
    }
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
