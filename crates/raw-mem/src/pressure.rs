//! Detects memory shortage by reading the files of the process's control groups.

use core::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::{preserving_errno, without_cancellation};

/// The minimum time between two readings of the files.
const INTERVAL: Duration = Duration::from_millis(100);

/// Memory counts as short if tasks waited for memory during at least this percentage of the time.
///
/// The kernel reports how long tasks waited for memory during the last ten seconds. We read this
/// time for the tasks of the process's control group. If this is not possible, we read it for all
/// tasks in the system.
const STALLED_PERCENT: u64 = 10;

/// The longest path, with its final zero byte.
const LONGEST: usize = 1024;

/// The largest number of nested control groups whose limits are read.
const MOST_GROUPS: usize = 16;

/// Detects whether memory is short for this process. Reads files of Linux, and allocates nothing.
///
/// Memory is short in either of these cases:
///
/// - One of the process's control groups (cgroup v2) has used at least seven eighths of its memory
///   limit, which is the lower of `memory.max` and `memory.high`. Cached file pages that the system
///   can drop do not count as used memory.
/// - Tasks waited for memory during at least a tenth of the last ten seconds. We read this share
///   from the `memory.pressure` file of the process's control group. If this file cannot be read,
///   we read `/proc/pressure/memory`, which covers the whole system.
///
/// On systems without these files, memory is never considered short.
///
/// ```
/// use raw_mem::{MemoryPressure, coarse_now};
///
/// let pressure = MemoryPressure::of_process();
/// if pressure.read_if_due(coarse_now()).is_some_and(|is_short| is_short) {
///     println!("memory is short");
/// }
/// ```
#[derive(Debug)]
pub struct MemoryPressure {
    /// The directory of the control group.
    group: Path,
    /// The length of the path of the topmost control group's directory.
    top: usize,
    /// The path of the `memory.pressure` file, which reports how long tasks waited for memory.
    stalls: Path,
    /// The time of the next reading of the files, in milliseconds.
    next: AtomicU64,
    is_short: AtomicBool,
}

impl MemoryPressure {
    /// Finds the control group of the process. The group's files are read later.
    pub fn of_process() -> Self {
        let mut buffer = [0; LONGEST];
        let text = read_file(&Path::of(&[b"/proc/self/cgroup"]), &mut buffer).unwrap_or_default();
        // In the line for version 2, the number is 0 and the list of controllers is empty.
        let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"));
        let group = line.unwrap_or_default();
        let tops: [&[u8]; 2] = [b"/sys/fs/cgroup", b"/sys/fs/cgroup/unified"];
        // A container may see the name of a group whose directory it cannot see.
        let places = tops.into_iter().flat_map(|top| [(top, group), (top, b"".as_slice())]);
        let has_group = |(top, group): &(&[u8], &[u8])| {
            read_file(&Path::of(&[top, group, b"/memory.pressure"]), &mut [0; 256]).is_some()
        };
        let mut found = places.filter(has_group);
        let (top, group) = found.next().unwrap_or((b"/sys/fs/cgroup", b""));
        let mut pressure = Self::of_group(top, group);
        if read_file(&pressure.stalls, &mut [0; 256]).is_none() {
            pressure.stalls = Path::of(&[b"/proc/pressure/memory"]);
        }
        pressure
    }

    /// Creates a value that reads the files of the control group `group` and of its parent groups.
    ///
    /// `top` is the directory of the topmost control group, usually `/sys/fs/cgroup`. `group` is
    /// the path of the control group below `top`, and must be empty or begin with a slash.
    ///
    /// This function is useful in tests, and if the control groups are mounted in an unusual
    /// directory.
    pub fn of_group(top: &[u8], group: &[u8]) -> Self {
        let group = group.strip_suffix(b"/").unwrap_or(group);
        Self {
            group: Path::of(&[top, group]),
            top: top.len(),
            stalls: Path::of(&[top, group, b"/memory.pressure"]),
            next: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
        }
    }

    /// Returns true if memory was short when the files were last read.
    pub fn is_short(&self) -> bool {
        self.is_short.load(Relaxed)
    }

    /// Reads the files about memory shortage, unless they were read within the last 100 ms.
    ///
    /// Returns `Some(true)` if memory is short, and `Some(false)` if it is not. Returns `None` if
    /// another call has read the files within the last 100 ms or is reading them now. `errno` is
    /// unchanged.
    ///
    /// `now` is the time since an arbitrary starting point, which must be the same in all calls.
    pub fn read_if_due(&self, now: Duration) -> Option<bool> {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let due = self.next.load(Relaxed);
        if milliseconds(now) < due {
            return None;
        }
        // Only the thread whose exchange succeeds reads the files.
        let next = milliseconds(now.saturating_add(INTERVAL));
        self.next.compare_exchange(due, next, Relaxed, Relaxed).ok()?;
        let is_short = preserving_errno(|| self.is_near_a_limit() || self.is_stalled());
        self.is_short.store(is_short, Relaxed);
        Some(is_short)
    }

    fn is_near_a_limit(&self) -> bool {
        let mut len = self.group.len;
        for _ in 0..MOST_GROUPS {
            let group = Group { folder: &self.group.bytes[..len] };
            if group.is_near_its_limit() {
                return true;
            }
            let parent = self.group.bytes[..len].iter().rposition(|byte| *byte == b'/');
            match parent {
                Some(parent) if parent >= self.top => len = parent,
                _ => return false,
            }
        }
        false
    }

    fn is_stalled(&self) -> bool {
        let mut buffer = [0; 256];
        let Some(text) = read_file(&self.stalls, &mut buffer) else { return false };
        // The line looks like `some avg10=1.50 avg60=0.30 avg300=0.00 total=123456`.
        number_behind(text, b"some avg10=").is_some_and(|percent| percent >= STALLED_PERCENT)
    }
}

/// A control group.
struct Group<'a> {
    folder: &'a [u8],
}

impl Group<'_> {
    fn is_near_its_limit(&self) -> bool {
        let limits = [self.number(b"/memory.max"), self.number(b"/memory.high")];
        let Some(limit) = limits.into_iter().flatten().min() else { return false };
        let most = limit - limit / 8;
        let Some(used) = self.number(b"/memory.current").filter(|used| *used >= most) else {
            return false;
        };
        // The system drops pages of files that were not used recently before it reclaims other
        // pages.
        let mut buffer = [0; 4096];
        let stat = read_file(&Path::of(&[self.folder, b"/memory.stat"]), &mut buffer);
        let files = stat.and_then(|stat| number_behind(stat, b"\ninactive_file "));
        used.saturating_sub(files.unwrap_or(0)) >= most
    }

    /// Reads a file of this control group that contains a number. Returns `None` if it contains
    /// `max`, which means no limit.
    fn number(&self, name: &[u8]) -> Option<u64> {
        number_at_start(read_file(&Path::of(&[self.folder, name]), &mut [0; 64])?)
    }
}

fn number_behind(text: &[u8], name: &[u8]) -> Option<u64> {
    let at = text.windows(name.len()).position(|window| window == name)?;
    number_at_start(&text[at + name.len()..])
}

fn number_at_start(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    core::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

/// A path that ends with a zero byte. A path that is too long is stored as an empty path.
struct Path {
    bytes: [u8; LONGEST],
    /// # Invariant
    ///
    /// `len < LONGEST`, and the byte at `len` is zero.
    len: usize,
}

impl Path {
    fn of(parts: &[&[u8]]) -> Self {
        let mut path = Self { bytes: [0; LONGEST], len: 0 };
        for part in parts {
            let end = path.len + part.len();
            if end >= LONGEST {
                // INVARIANT: an empty path ends with a zero byte.
                return Self { bytes: [0; LONGEST], len: 0 };
            }
            path.bytes[path.len..end].copy_from_slice(part);
            // INVARIANT: nothing was written after `end`, which is less than `LONGEST`.
            path.len = end;
        }
        path
    }
}

impl core::fmt::Debug for Path {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let text = core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("(not UTF-8)");
        core::fmt::Debug::fmt(text, f)
    }
}

/// Reads the beginning of a file into `buffer`. Returns `None` if that fails.
fn read_file<'b>(path: &Path, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    without_cancellation(|| read(path, buffer))
}

#[cfg(all(unix, not(miri)))]
fn read<'b>(path: &Path, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    // SAFETY: the path ends with a zero byte (invariant of `len`).
    let file = unsafe { libc::open(path.bytes.as_ptr().cast(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return None;
    }
    // SAFETY: the buffer has this length, and the file is open.
    let len = unsafe { libc::read(file, buffer.as_mut_ptr().cast(), buffer.len()) };
    // SAFETY: the file was opened above and is used nowhere else.
    unsafe { libc::close(file) };
    buffer.get(..usize::try_from(len).ok()?)
}

/// Returns `None`, because this target has no files.
#[cfg(not(all(unix, not(miri))))]
fn read<'b>(_path: &Path, _buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    None
}

#[cfg(all(test, unix, not(miri)))]
mod tests {
    use std::{env, fs, path::PathBuf, process, string::String, vec::Vec};

    use super::*;

    /// A folder with the files of a control group and of its parent.
    struct Folder(PathBuf);

    const FILES: [(&str, &str); 5] = [
        ("memory.current", "100000\n"),
        ("memory.max", "max\n"),
        ("memory.high", "max\n"),
        ("memory.stat", "anon 90000\nfile 10000\ninactive_file 1000\n"),
        ("memory.pressure", "some avg10=9.99 avg60=99.00 avg300=0.00 total=5\nfull avg10=99.00\n"),
    ];

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = env::temp_dir().join(std::format!("pressure-{}-{name}", process::id()));
            fs::create_dir_all(folder.join("outer/inner")).unwrap();
            let folder = Self(folder);
            for (file, text) in FILES {
                folder.write(&std::format!("outer/inner/{file}"), text);
            }
            folder
        }

        fn write(&self, file: &str, text: &str) {
            fs::write(self.0.join(file), text).unwrap();
        }

        fn pressure(&self) -> MemoryPressure {
            MemoryPressure::of_group(self.0.as_os_str().as_encoded_bytes(), b"/outer/inner")
        }

        fn is_short(&self) -> bool {
            self.pressure().read_if_due(Duration::ZERO).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn memory_is_short_near_either_limit_of_the_group() {
        let folder = Folder::new("limits");
        assert!(!folder.is_short());
        for file in ["outer/inner/memory.max", "outer/inner/memory.high"] {
            // The group uses 99,000 bytes apart from files, which are seven eighths of 113,142.
            for (limit, is_short) in [("113200", false), ("113142", true), ("50000", true)] {
                folder.write(file, limit);
                assert_eq!(folder.is_short(), is_short, "{file}: {limit}");
            }
            folder.write(file, "max");
        }
    }

    #[test]
    fn the_limits_of_the_groups_around_count_as_well() {
        let folder = Folder::new("nested");
        folder.write("outer/memory.max", "100000");
        folder.write("outer/memory.current", "80000");
        assert!(!folder.is_short());
        folder.write("outer/memory.current", "90000");
        assert!(folder.is_short());
        let sibling = MemoryPressure::of_group(folder.0.as_os_str().as_encoded_bytes(), b"/");
        assert_eq!(sibling.read_if_due(Duration::ZERO), Some(false));
    }

    #[test]
    fn file_pages_that_can_be_dropped_do_not_count() {
        let folder = Folder::new("files");
        folder.write("outer/inner/memory.max", "100000");
        assert!(folder.is_short());
        folder.write("outer/inner/memory.stat", "anon 1\ninactive_file 30000\n");
        assert!(!folder.is_short());
    }

    #[test]
    fn memory_is_short_if_tasks_wait_for_it() {
        let folder = Folder::new("stalls");
        for (stalled, is_short) in [("0.00", false), ("9.99", false), ("10.00", true)] {
            let text = std::format!("some avg10={stalled} avg60=0.00\nfull avg10=50.00\n");
            folder.write("outer/inner/memory.pressure", &text);
            assert_eq!(folder.is_short(), is_short, "{stalled}");
        }
    }

    #[test]
    fn the_files_are_read_at_most_once_in_an_interval() {
        let folder = Folder::new("interval");
        let pressure = folder.pressure();
        let at = Duration::from_millis;
        assert_eq!(pressure.read_if_due(at(5000)), Some(false));
        folder.write("outer/inner/memory.max", "1");
        assert_eq!((pressure.read_if_due(at(5099)), pressure.is_short()), (None, false));
        assert_eq!((pressure.read_if_due(at(5100)), pressure.is_short()), (Some(true), true));
        assert_eq!((pressure.read_if_due(at(5150)), pressure.is_short()), (None, true));
    }

    /// Regression test: the time of the next reading overflowed.
    #[test]
    fn the_clock_may_be_as_late_as_possible() {
        let pressure = Folder::new("late").pressure();
        assert_eq!(pressure.read_if_due(Duration::MAX), Some(false));
    }

    #[test]
    fn without_files_memory_is_never_short_and_errno_stays() {
        let nowhere = MemoryPressure::of_group(b"/no/such/folder", b"/group");
        crate::errno::set(libc::EBADF);
        assert_eq!(nowhere.read_if_due(Duration::ZERO), Some(false));
        assert_eq!(crate::errno::get(), libc::EBADF);
        let too_long: Vec<u8> = [b"/x".as_slice(); LONGEST].concat();
        let pressure = MemoryPressure::of_group(&too_long, b"/group");
        assert_eq!(pressure.read_if_due(Duration::ZERO), Some(false));
        let name = String::from_utf8(too_long).unwrap();
        assert!(!std::format!("{pressure:?}").contains(&name));
    }

    #[test]
    fn the_group_of_this_process_can_be_asked() {
        let pressure = MemoryPressure::of_process();
        assert!(pressure.read_if_due(Duration::from_secs(1)).is_some());
    }
}
