//! System calls that the standard library does not provide.

use std::{
    ffi::{CStr, CString},
    io,
    mem::MaybeUninit,
    os::unix::{ffi::OsStrExt, process::ExitStatusExt},
    path::Path,
    process::{Child, ExitStatus},
    ptr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
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

/// Returns true if the file system of `path` is mounted such that its programs get no privileges.
pub(crate) fn ignores_privileges(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let mut found = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path is a C string, and the result is valid for writes.
    let result = unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) };
    // SAFETY: the call succeeded or changed nothing, and zero is a valid value of each field.
    result == 0 && unsafe { found.assume_init() }.f_flag & libc::ST_NOSUID != 0
}

/// Makes a write to a closed pipe end this process silently, as in other command-line programs.
///
/// Rust ignores the signal SIGPIPE at first. The programs that we start get the default action in
/// any case.
pub fn end_on_closed_pipes() {
    // SAFETY: the default action runs no code of this process.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// True if this process received SIGTERM while a [`Waiting`] exists.
static IS_TERMINATED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_termination(_: libc::c_int) {
    IS_TERMINATED.store(true, Relaxed);
}

/// While a `Waiting` exists, SIGINT and SIGTERM do not end this process.
///
/// When the user presses Ctrl-C, the terminal sends SIGINT to the children of this process too. The
/// children can react to it, so this process ignores the signal. A SIGTERM is usually sent to this
/// process alone, and [`pass_on`](Self::pass_on) can send it on to a child. When the `Waiting` is
/// dropped, both signals get back the actions that they had before it was created.
#[derive(Debug)]
pub(crate) struct Waiting {
    earlier: [(libc::c_int, libc::sighandler_t); 2],
}

impl Waiting {
    /// Must be called after the child was started, because a child inherits an ignored signal.
    pub(crate) fn new() -> Self {
        let note: extern "C" fn(libc::c_int) = note_termination;
        let actions = [(libc::SIGINT, libc::SIG_IGN), (libc::SIGTERM, note as libc::sighandler_t)];
        // SAFETY: the handler only stores to an atomic, which a handler may do.
        Self { earlier: actions.map(|(signal, to)| (signal, unsafe { libc::signal(signal, to) })) }
    }

    /// Sends SIGTERM to `child` if this process has received it since the last call.
    ///
    /// The caller must not have waited for `child`, because another process could have its id then.
    pub(crate) fn pass_on(&self, child: &Child) {
        if IS_TERMINATED.swap(false, Relaxed) {
            // SAFETY: the call accesses no memory.
            unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        for (signal, action) in self.earlier {
            // SAFETY: the action was in effect before, so it is valid.
            unsafe { libc::signal(signal, action) };
        }
    }
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
