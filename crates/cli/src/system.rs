//! System calls that the standard library does not provide.

use std::{
    ffi::{CStr, CString},
    io,
    mem::MaybeUninit,
    os::unix::{ffi::OsStrExt, process::ExitStatusExt},
    path::Path,
    process::{Child, ExitStatus},
    ptr,
};

/// Returns the id of the effective group.
pub(crate) fn group() -> u32 {
    // SAFETY: `getegid` has no arguments and cannot fail.
    unsafe { libc::getegid() }
}

/// Returns true if the file at `path` has the extended attribute `name`.
pub(crate) fn has_attribute(path: &Path, name: &CStr) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: both strings end with a zero byte, and a buffer of size 0 is not written to.
    unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), ptr::null_mut(), 0) >= 0 }
}

/// Waits for `child` to end, and returns its status and the resources that it used.
pub(crate) fn wait(child: Child) -> io::Result<(ExitStatus, libc::rusage)> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: nobody has waited for `child` yet, so its id is valid. Both pointers are valid
        // for writes.
        let pid =
            unsafe { libc::wait4(child.id().cast_signed(), &mut status, 0, usage.as_mut_ptr()) };
        if pid >= 0 {
            // SAFETY: zero is a valid value for every number of a `rusage`.
            return Ok((ExitStatus::from_raw(status), unsafe { usage.assume_init() }));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
