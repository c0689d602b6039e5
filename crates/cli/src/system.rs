//! System calls that the standard library does not provide.

use std::{
    ffi::{CStr, CString, OsString},
    io,
    mem::MaybeUninit,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Child, Command, ExitStatus},
    ptr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use status::StatusFile;

/// Opens the status page of the process `pid`.
///
/// # Errors
///
/// Fails as [`StatusFile::of`] does.
pub(crate) fn status_page(pid: u32) -> io::Result<StatusFile> {
    // SAFETY: no process makes the file shorter. Only programs of this user have access to it, and
    // neither our libraries nor this command shorten it.
    unsafe { StatusFile::of(pid) }
}

/// Opens every status page of this user, and skips those that cannot be opened.
pub(crate) fn status_pages() -> Vec<StatusFile> {
    // SAFETY: as above.
    unsafe { StatusFile::all() }
}

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

/// Returns the folders that `execvp` searches if `PATH` is not set, such as `/bin:/usr/bin`.
pub(crate) fn default_path() -> OsString {
    // SAFETY: a buffer of size 0 is not written to.
    let size = unsafe { libc::confstr(libc::_CS_PATH, ptr::null_mut(), 0) };
    let mut path = vec![0; size];
    // SAFETY: the buffer is valid for writes of `size` bytes.
    unsafe { libc::confstr(libc::_CS_PATH, path.as_mut_ptr().cast(), size) };
    // The text ends with a zero byte.
    path.pop();
    OsString::from_vec(path)
}

/// True if SIGPIPE was ignored when this process started.
static WAS_SIGPIPE_IGNORED: AtomicBool = AtomicBool::new(false);

/// Makes the loader call `record_sigpipe` before `main`. Rust's runtime, which starts in `main`,
/// ignores the signal.
#[used]
#[unsafe(link_section = ".init_array")]
static RECORD_SIGPIPE: extern "C" fn() = record_sigpipe;

extern "C" fn record_sigpipe() {
    let mut found = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, the call only writes the current one to `found`.
    let result = unsafe { libc::sigaction(libc::SIGPIPE, ptr::null(), found.as_mut_ptr()) };
    // SAFETY: zero is a valid value of each field, also if the call failed.
    let action = unsafe { found.assume_init() }.sa_sigaction;
    WAS_SIGPIPE_IGNORED.store(result == 0 && action == libc::SIG_IGN, Relaxed);
}

/// Makes the program of `command` ignore SIGPIPE if this process was started with the signal
/// ignored.
///
/// Otherwise, the program gets the default action, which the standard library sets in every program
/// that it starts.
pub(crate) fn pass_on_ignored_sigpipe(command: &mut Command) {
    if !WAS_SIGPIPE_IGNORED.load(Relaxed) {
        return;
    }
    let ignore = || {
        // SAFETY: no handler runs, because the signal is ignored.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        Ok(())
    };
    // SAFETY: `signal` is async-signal-safe, so the closure may run in a forked child.
    unsafe { command.pre_exec(ignore) };
}

/// Makes a write to a closed pipe end this process silently, as in other command-line programs.
///
/// Rust ignores the signal SIGPIPE at first. This action does not affect the programs that we start
/// (see `pass_on_ignored_sigpipe`).
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
/// When the user presses Ctrl-C, the terminal sends SIGINT to this process and to its children.
/// This process ignores SIGINT, so that each child decides how to react. A SIGTERM is usually sent
/// to this process alone. The method [`pass_on`](Self::pass_on) forwards it to a child.
///
/// Creating a `Waiting` changes the actions of both signals, and dropping it restores the earlier
/// actions.
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
