//! Status pages: mapped files in which processes publish their statistics and receive commands.

use std::{
    fs::{self, File, OpenOptions},
    io,
    ops::Deref,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use memmap2::{MmapOptions, MmapRaw};
use sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::{
    folder::{self, user},
    text::SharedText,
};

/// The size of the file in bytes.
pub const SIZE: usize = 32 << 10;

/// The magic number of a status page: the text `obmstat` and the version of the layout.
const MAGIC: u64 = u64::from_le_bytes(*b"obmstat\x02");

/// The number of pages of ended processes that remain in a folder when old pages are removed.
pub const KEPT: usize = 100;

/// The number of pages in a folder above which old pages are removed.
const MOST: usize = KEPT + 28;

/// The number of words of a [`Page`] before its text.
const HEADER: usize = 8;

/// The number of words that precede the text in a [`SharedText`]: the sequence and the length.
const OF_TEXT: usize = 2;

const WORDS: usize = SIZE / size_of::<u64>() - HEADER - OF_TEXT;

/// A status page. Zeroed memory is a valid page that belongs to no process.
///
/// A forked child inherits the mapping of its parent's page. [`publish`](Self::publish),
/// [`reply`](Self::reply) and [`end`](Self::end) therefore change nothing unless the calling
/// process owns the page.
#[derive(Debug)]
#[repr(C)]
pub struct Page {
    magic: AtomicU64,
    pid: AtomicU64,
    start: AtomicU64,
    ended: AtomicU64,
    command: AtomicU64,
    answered: AtomicU64,
    answer: AtomicU64,
    published: AtomicU64,
    text: SharedText<WORDS>,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Page>() == SIZE);

impl Page {
    /// Returns the id of the process that owns this page.
    pub fn pid(&self) -> u32 {
        self.pid.load(Relaxed) as u32
    }

    /// Returns true if the calling process owns this page. Returns false in a forked child.
    pub fn is_own(&self) -> bool {
        self.pid() == this_process()
    }

    /// Returns the text, which only the process that owns this page replaces.
    pub fn text(&self) -> &SharedText<WORDS> {
        &self.text
    }

    /// Publishes `text` and the current time on this page. If the text is too long, or if another
    /// process owns the page, publishes nothing and returns false.
    pub fn publish(&self, text: &[u8]) -> bool {
        let is_published = self.is_own() && self.text.publish(text);
        if is_published {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            self.published.store(now.unwrap_or_default().as_millis() as u64, Relaxed);
        }
        is_published
    }

    /// Returns the time at which the text was published, or `None` if there is no text yet.
    pub fn published(&self) -> Option<SystemTime> {
        let time = Duration::from_millis(self.published.load(Relaxed));
        (!time.is_zero()).then(|| SystemTime::UNIX_EPOCH.checked_add(time))?
    }

    /// Returns true if the process has called [`end`](Self::end).
    pub fn has_ended(&self) -> bool {
        self.ended.load(Relaxed) != 0
    }

    /// Records that the process is ending.
    pub fn end(&self) {
        if self.is_own() {
            self.ended.store(1, Relaxed);
        }
    }

    /// Returns true if the process that owns this page is still running.
    pub fn is_live(&self) -> bool {
        !self.has_ended() && start_time(self.pid()) == Some(self.start.load(Relaxed))
    }

    /// Asks the process for a trim, and returns the number of this command.
    pub fn ask(&self) -> u64 {
        self.command.fetch_add(1, Relaxed).wrapping_add(1)
    }

    /// Returns the number of the latest command, unless the process has already carried it out.
    pub fn asked(&self) -> Option<u64> {
        let command = self.command.load(Relaxed);
        (command != self.answered.load(Relaxed)).then_some(command)
    }

    /// Records that the process has carried out `command`, which freed `answer` bytes.
    pub fn reply(&self, command: u64, answer: u64) {
        if !self.is_own() {
            return;
        }
        self.answer.store(answer, Relaxed);
        // Release: a client that sees this command number also sees the answer.
        self.answered.store(command, Release);
    }

    /// Returns the answer to `command`, or `None` if the process has not carried it out yet.
    pub fn answer(&self, command: u64) -> Option<u64> {
        (self.answered.load(Acquire) >= command).then(|| self.answer.load(Relaxed))
    }
}

/// A mapped status page and the path of its file.
///
/// While a `StatusFile` exists, no process may make its file shorter. If one did, SIGBUS could end
/// this process when it accesses the missing part of the mapped file. The functions that create or
/// open a page are unsafe because of this requirement. Only the user who owns the file has access
/// to it.
#[derive(Debug)]
pub struct StatusFile {
    path: PathBuf,
    /// # Invariant
    ///
    /// The mapping has [`SIZE`] bytes and starts at a page boundary.
    map: MmapRaw,
}

impl StatusFile {
    /// Creates the page of the process `pid` in the first usable folder of [`folder::candidates`].
    ///
    /// If the folder has many pages, removes the oldest pages of ended processes.
    ///
    /// # Errors
    ///
    /// Fails if the page cannot be created in any folder.
    ///
    /// # Safety
    ///
    /// - While the returned `StatusFile` exists, no process may make its file shorter.
    /// - During the call, no process may make the files of this user's other status pages shorter,
    ///   because the function may read these files.
    pub unsafe fn create(pid: u32) -> io::Result<Self> {
        // SAFETY: the contract is the same.
        unsafe { Self::create_in_first(&folder::candidates(), pid) }
    }

    /// Creates the page of the process `pid` in the first usable folder of `folders`.
    ///
    /// # Safety
    ///
    /// The requirements of [`create`](Self::create) must be met.
    unsafe fn create_in_first(folders: &[PathBuf], pid: u32) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for folder in folders {
            // SAFETY: the contract is the same.
            match folder::own(folder).and_then(|()| unsafe { Self::create_in(folder, pid) }) {
                Ok(page) => {
                    // SAFETY: no process makes the file of a page in this folder shorter
                    // (contract).
                    unsafe { remove_oldest(folder) };
                    return Ok(page);
                }
                Err(error) => last = named(folder, &error),
            }
        }
        Err(last)
    }

    /// Creates the page of the process `pid` in `folder`. Only this user may own and write to it.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be created or mapped, if the process `pid` does not
    /// exist, or if the file would exceed the file size limit of the calling process.
    ///
    /// # Safety
    ///
    /// While the result exists, no process may make the file shorter.
    pub unsafe fn create_in(folder: &Path, pid: u32) -> io::Result<Self> {
        // If the file exceeded the limit, the system would send SIGXFSZ, which ends the process by
        // default.
        if size_limit() < SIZE as libc::rlim_t {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        let path = folder.join(format!("{pid}.status"));
        // An existing page with this name belongs to an earlier process with the same id.
        let _ = fs::remove_file(&path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW).open(&path)?;
        // SAFETY: the descriptor is open, and the call accesses no memory.
        let error = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, SIZE as libc::off_t) };
        let made = match error {
            // SAFETY: the file has `SIZE` bytes now; the caller upholds the rest.
            0 => unsafe { Self::map(path.clone(), &file) },
            error => Err(io::Error::from_raw_os_error(error)),
        };
        let start = start_time(pid).ok_or(io::ErrorKind::NotFound);
        let page = made.and_then(|page| Ok((page, start?)));
        let (page, start) = page.inspect_err(|_| _ = fs::remove_file(&path))?;
        page.pid.store(u64::from(pid), Relaxed);
        page.start.store(start, Relaxed);
        // Release: a reader that sees the magic number also sees the process.
        page.magic.store(MAGIC, Release);
        Ok(page)
    }

    /// Opens the page at `path`. Only this user may have access to it.
    ///
    /// # Errors
    ///
    /// Fails if the file is not a status page, or if another user owns it or has access to it.
    ///
    /// # Safety
    ///
    /// While the result exists, no process may make the file shorter.
    pub unsafe fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
        let found = file.metadata()?;
        let invalid = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        if found.uid() != user() || found.mode() & 0o077 != 0 {
            return invalid("it does not belong to this user alone");
        }
        if found.len() != SIZE as u64 {
            return invalid("it has another size");
        }
        // SAFETY: the file has `SIZE` bytes; the caller upholds the rest.
        let page = unsafe { Self::map(path.to_owned(), &file) }?;
        if page.magic.load(Acquire) != MAGIC {
            return invalid("it is not a status page of this version");
        }
        Ok(page)
    }

    /// Opens the page of the process `pid`, which can be in any folder of [`folder::candidates`].
    ///
    /// # Errors
    ///
    /// Fails if no folder contains a valid page of this process.
    ///
    /// # Safety
    ///
    /// While the result exists, no process may make the file shorter.
    pub unsafe fn of(pid: u32) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for folder in folder::candidates() {
            let path = folder.join(format!("{pid}.status"));
            // SAFETY: the contract is the same.
            match unsafe { Self::open(&path) } {
                Ok(page) => return Ok(page),
                // A page that is refused says more than the absence of another one.
                Err(error) if error.kind() == io::ErrorKind::NotFound => (),
                Err(error) => last = named(&path, &error),
            }
        }
        Err(last)
    }

    /// Opens every page of this user, and skips the pages that cannot be opened.
    ///
    /// # Safety
    ///
    /// While a page in the result exists, no process may make its file shorter.
    pub unsafe fn all() -> Vec<Self> {
        let folders = folder::candidates().into_iter().filter(|folder| folder.is_dir());
        let owned = folders.filter(|folder| folder::own(folder).is_ok());
        let paths = owned.flat_map(|folder| paths(&folder));
        // SAFETY: the contract is the same.
        paths.filter_map(|path| unsafe { Self::open(&path) }.ok()).collect()
    }

    /// Returns the time of the last change that is known: the creation, or the newest text.
    pub fn changed(&self) -> SystemTime {
        // On tmpfs, a change through the mapping does not change the file's time.
        let file = fs::metadata(&self.path).and_then(|found| found.modified());
        let file = file.unwrap_or(SystemTime::UNIX_EPOCH);
        self.published().map_or(file, |published| published.max(file))
    }

    /// Maps the status page in `file`.
    ///
    /// # Safety
    ///
    /// The file must have [`SIZE`] bytes, and no process may make it shorter while the result
    /// exists.
    unsafe fn map(path: PathBuf, file: &File) -> io::Result<Self> {
        // INVARIANT: the file has `SIZE` bytes (contract), and every mapping starts at a page
        // boundary.
        let map = MmapOptions::new().len(SIZE).map_raw(file)?;
        Ok(Self { path, map })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file. The mapping stays valid.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// Returns the paths of the pages in `folder`.
fn paths(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "status")).collect()
}

/// Removes the oldest pages of ended processes if `folder` has more than [`MOST`] pages, so that
/// the newest [`KEPT`] remain.
///
/// `MOST` is greater than `KEPT`, so only one in many processes opens the pages of the others.
///
/// # Safety
///
/// During the call, no process may make the file of a page shorter.
unsafe fn remove_oldest(folder: &Path) {
    let paths = paths(folder);
    if paths.len() <= MOST {
        return;
    }
    // SAFETY: no process makes a file shorter as long as the pages exist (contract).
    let pages = paths.iter().filter_map(|path| unsafe { StatusFile::open(path) }.ok());
    let mut ended: Vec<_> =
        pages.filter(|page| !page.is_live()).map(|page| (page.changed(), page)).collect();
    ended.sort_by_key(|(changed, _)| std::cmp::Reverse(*changed));
    for (_, page) in ended.iter().skip(KEPT) {
        // If this fails, another process has removed the page.
        let _ = page.remove();
    }
}

/// Adds the path of a page or folder to an error.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

impl Deref for StatusFile {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: the mapping is large enough and aligned (invariant of `map`). A `Page` consists
        // of atomics, so other processes may change it, and every bit pattern is valid.
        unsafe { &*self.map.as_ptr().cast::<Page>() }
    }
}

/// Returns the id of the calling process.
///
/// We make the system call ourselves, because the function `getpid` of glibc before 2.25 caches its
/// result. In a child that was forked by a direct system call, this function returns the id of the
/// parent.
pub fn this_process() -> u32 {
    // SAFETY: the call has no arguments and accesses no memory.
    unsafe { libc::syscall(libc::SYS_getpid) as u32 }
}

/// Returns the largest size that the calling process may give to a file (`RLIMIT_FSIZE`).
fn size_limit() -> libc::rlim_t {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is valid for writes. It stays unchanged if the call fails.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    limit.rlim_cur
}

/// Returns the start time of the process `pid`, in clock ticks since the system was booted.
///
/// Returns `None` if the process has ended, even if its parent has not waited for it yet.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program is in parentheses and can contain spaces. The state follows it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X");
    let start = fields.nth(18)?.parse().ok()?;
    (!has_ended).then_some(start)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{os::unix::fs::PermissionsExt, process, slice::from_ref};

    use super::*;

    fn create_in_first(folder: &PathBuf) -> io::Result<StatusFile> {
        // SAFETY: the tests never make the file of a page shorter.
        unsafe { StatusFile::create_in_first(from_ref(folder), process::id()) }
    }

    fn create_in(folder: &Path) -> StatusFile {
        // SAFETY: as above.
        unsafe { StatusFile::create_in(folder, process::id()) }.unwrap()
    }

    fn open(path: &Path) -> io::Result<StatusFile> {
        // SAFETY: as above.
        unsafe { StatusFile::open(path) }
    }

    fn remove_oldest_in(folder: &Path) {
        // SAFETY: as above.
        unsafe { remove_oldest(folder) };
    }

    #[test]
    fn what_the_process_publishes_is_read_through_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let own = create_in(folder.path());
        let other = open(own.path()).unwrap();
        assert!(own.publish(b"{}"));
        assert_eq!((other.pid(), other.text().read().unwrap()), (process::id(), b"{}".to_vec()));
        assert!(other.is_live());
        own.end();
        assert!(!other.is_live());
        assert_eq!(fs::metadata(own.path()).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_error_names_the_folder_that_cannot_have_pages() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = create_in_first(&file).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: it is not a folder", file.display()));
    }

    #[test]
    fn the_time_of_the_text_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let own = create_in(folder.path());
        assert_eq!(own.published(), None);
        let before = SystemTime::now() - Duration::from_millis(1);
        assert!(own.publish(b"{}") && !own.publish(&[b' '; SIZE]));
        let published = own.published().unwrap();
        assert!(published >= before && published <= SystemTime::now());
        assert!(own.changed() >= published);
    }

    #[test]
    fn only_the_newest_pages_of_ended_processes_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let own = create_in(folder.path());
        let ended = |number: usize| {
            let path = folder.path().join(format!("ended-{number}.status"));
            fs::copy(own.path(), &path).unwrap();
            let page = open(&path).unwrap();
            page.end();
            // The first page is the newest one.
            let time = SystemTime::now() + Duration::from_secs(3600 - number as u64);
            let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            page.published.store(time.as_millis() as u64, Relaxed);
            path
        };
        let pages: Vec<_> = (1..MOST).map(ended).collect();
        remove_oldest_in(folder.path());
        assert!(pages.iter().all(|page| page.exists()));
        let last = ended(MOST);
        remove_oldest_in(folder.path());
        assert!(own.path().exists() && !last.exists());
        let remaining: Vec<_> = pages.iter().filter(|page| page.exists()).collect();
        assert_eq!(remaining, pages[..KEPT].iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_command_is_answered_once() {
        let folder = tempfile::tempdir().unwrap();
        let own = create_in(folder.path());
        let client = open(own.path()).unwrap();
        assert_eq!(own.asked(), None);
        let command = client.ask();
        assert_eq!((own.asked(), client.answer(command)), (Some(command), None));
        own.reply(command, 4096);
        assert_eq!((own.asked(), client.answer(command)), (None, Some(4096)));
    }

    /// A fork by a system call, which runs no fork handlers.
    ///
    /// Regression test: the page was not mapped in the child.
    #[test]
    fn a_forked_child_can_read_its_parents_page_but_cannot_change_it() {
        let folder = tempfile::tempdir().unwrap();
        let own = create_in(folder.path());
        assert!(own.publish(b"{}"));
        let command = open(own.path()).unwrap().ask();
        let before = fs::read(own.path()).unwrap();
        // SAFETY: without flags, the call copies the process as `fork` does.
        let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        if child == 0 {
            let is_read = own.asked() == Some(command);
            let is_changed = own.publish(b"from the child");
            own.reply(command, 1);
            own.end();
            // SAFETY: `_exit` may be called at any time.
            unsafe { libc::_exit(i32::from(!is_read || is_changed)) };
        }
        let mut status = -1;
        // SAFETY: `status` is valid for writes.
        let ended = unsafe { libc::waitpid(child as libc::pid_t, &mut status, 0) };
        assert_eq!((libc::c_long::from(ended), status), (child, 0));
        assert_eq!(fs::read(own.path()).unwrap(), before);
        own.reply(command, 4096);
        assert_eq!(own.asked(), None);
    }

    #[test]
    fn a_file_of_others_or_of_another_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let own = create_in(folder.path());
        fs::set_permissions(own.path(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(open(own.path()).is_err());
        let short = folder.path().join("1.status");
        fs::write(&short, "x").unwrap();
        fs::set_permissions(&short, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(open(&short).unwrap_err().to_string().contains("size"));
        fs::write(&short, vec![0; SIZE]).unwrap();
        assert!(open(&short).unwrap_err().to_string().contains("not a status page"));
        let link = folder.path().join("2.status");
        std::os::unix::fs::symlink(own.path(), &link).unwrap();
        assert!(open(&link).is_err());
    }

    #[test]
    fn a_process_has_ended_before_its_parent_waits_for_it() {
        let mut child =
            process::Command::new("cat").stdin(process::Stdio::piped()).spawn().unwrap();
        assert!(start_time(child.id()) >= start_time(process::id()));
        drop(child.stdin.take());
        while start_time(child.id()).is_some() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }

    #[test]
    fn a_page_of_an_earlier_process_with_the_same_id_is_not_live() {
        let folder = tempfile::tempdir().unwrap();
        let own = create_in(folder.path());
        own.start.store(1, Relaxed);
        assert!(!own.is_live());
    }
}
