//! The place to which statistics are written. An environment variable selects it.
//!
//! No function in this module allocates memory.

use std::{
    ffi::{c_char, c_int},
    fmt::{self, Write},
    io::Write as _,
    mem::MaybeUninit,
};

use raw_mem::Output;

use crate::{
    output::{errno, say},
    words::{OFF, ON, UnknownWord, is_one_of},
};

/// The largest size of a path in bytes, including the terminating zero byte.
const LONGEST: usize = 4096;

/// The place to which statistics are written.
#[expect(
    clippy::large_enum_variant,
    reason = "a value is static or boxed, and nothing is allocated"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// No statistics are written.
    Nowhere,
    /// The standard error output.
    Stderr,
    /// The file with this path, in which `%p` stands for the process id.
    File(Path),
}

/// An absolute path that ends with a zero byte.
#[derive(Clone, PartialEq, Eq)]
pub struct Path {
    bytes: [u8; LONGEST],
    /// # Invariant
    ///
    /// `len < LONGEST`, and the bytes from `len` on are zero.
    len: usize,
}

const KNOWN: &str =
    "0, false, no, off, 1, true, yes, on, and a path, which has a slash, a dot or %p";

impl Place {
    /// Interprets `value`, the value of the variable `setting`.
    ///
    /// A relative path starts at the current directory. If a path is too long, the place is stderr.
    ///
    /// # Errors
    ///
    /// Returns an error that lists the known words if `value` is neither one of them nor a path.
    pub fn of<'v>(setting: &'static str, value: &'v [u8]) -> Result<Self, UnknownWord<'v>> {
        if is_one_of(value, &OFF) {
            return Ok(Self::Nowhere);
        }
        if is_one_of(value, &ON) {
            return Ok(Self::Stderr);
        }
        if !value.iter().any(|byte| b"/.%".contains(byte)) {
            return Err(UnknownWord::new(setting, value, KNOWN));
        }
        let mut path = Path::EMPTY;
        let is_complete = (value.starts_with(b"/") || path.push_current_folder())
            && value.iter().all(|byte| path.push(*byte));
        Ok(if is_complete { Self::File(path) } else { Self::Stderr })
    }

    /// Calls `write` with a writer for this place, and with true if the format must be JSON.
    ///
    /// If the file cannot be written, a message on stderr says so.
    ///
    /// The writer cannot outlive the call, because this function closes the file before it returns:
    ///
    /// ```compile_fail,E0521
    /// # fn example(place: &host::Place) {
    /// let mut stolen = host::Output::stderr();
    /// place.write(1, |output, _| std::mem::swap(output, &mut stolen));
    /// # }
    /// ```
    pub fn write(&self, pid: u32, write: impl FnOnce(&mut Output<'_>, bool)) {
        match self {
            Self::Nowhere => {}
            Self::Stderr => {
                let mut stderr = Output::stderr();
                write(&mut stderr, false);
                stderr.finish();
            }
            Self::File(path) => match path.of_process(pid) {
                Some(file) => file.write(pid, path.is_json(), write),
                None => say(format_args!("cannot write the statistics to {path}: it is too long")),
            },
        }
    }
}

impl Path {
    const EMPTY: Self = Self { bytes: [0; LONGEST], len: 0 };

    /// Appends a byte to the path. Returns false if the path would be too long.
    fn push(&mut self, byte: u8) -> bool {
        let has_room = self.len + 1 < LONGEST;
        if has_room {
            // INVARIANT: the buffer has room for this byte and a terminating zero byte.
            self.bytes[self.len] = byte;
            self.len += 1;
        }
        has_room
    }

    fn push_current_folder(&mut self) -> bool {
        // SAFETY: the buffer has `LONGEST` bytes.
        if unsafe { libc::getcwd(self.bytes.as_mut_ptr().cast(), LONGEST) }.is_null() {
            return false;
        }
        // INVARIANT: the C library wrote a zero byte after the path, and only zeroes were there.
        self.len = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
        self.push(b'/')
    }

    /// Writes the file at this path, as [`Place::write`] describes.
    ///
    /// The function first writes the report to a draft, which is a new file in the same folder. It
    /// then renames the draft to the final name, so that a reader never sees an incomplete report.
    /// If it cannot use a draft, or cannot rename it, the function writes to the final file
    /// directly.
    fn write(mut self, pid: u32, is_json: bool, write: impl FnOnce(&mut Output<'_>, bool)) {
        let draft = self.mode_if_replaceable().and_then(|mode| self.create_draft(pid, mode));
        let is_written = match &draft {
            Some(draft) => {
                write_to(draft.fd, is_json, write)
                    && (draft.rename_to(&self) || draft.copy_to(self.open_directly()))
            }
            None => {
                let file = self.open_directly();
                let is_written = file >= 0 && write_to(file, is_json, write);
                close(file);
                is_written
            }
        };
        if !is_written {
            say(format_args!("cannot write the statistics to {self}: error {}", errno()));
        }
        if let Some(draft) = draft {
            draft.discard();
        }
    }

    fn open_directly(&self) -> c_int {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
        // SAFETY: the path is a C string.
        unsafe { libc::open(self.as_c(), flags, 0o666) }
    }

    /// Returns the permissions of the regular file at this path, or `Some(None)` if the path is new.
    ///
    /// Returns `None` if a rename must not replace the file at this path, or if the system does not
    /// tell the file's status. A rename must not replace a FIFO or a symbolic link, for example, or
    /// a file that its owner may not write. It must not replace a file of another user or group,
    /// because the new file would belong to the user and group of this process. It must not replace
    /// a file with several hard links, because its other names would keep the old contents.
    #[expect(clippy::option_option, reason = "a new file has no permissions to keep")]
    fn mode_if_replaceable(&self) -> Option<Option<libc::mode_t>> {
        let mut status = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: the path is a C string, and `status` has room for the result.
        if unsafe { libc::lstat(self.as_c(), status.as_mut_ptr()) } != 0 {
            return (errno() == libc::ENOENT).then_some(None);
        }
        // SAFETY: the call succeeded, so it has written the status.
        let status = unsafe { status.assume_init() };
        // SAFETY: the calls have no arguments and cannot fail.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        let mode = status.st_mode;
        let is_plain = mode & libc::S_IFMT == libc::S_IFREG && status.st_nlink == 1;
        let is_own = status.st_uid == user && status.st_gid == group;
        (is_plain && is_own && mode & libc::S_IWUSR != 0).then_some(Some(mode & 0o777))
    }

    /// Creates an empty file in the folder of this path.
    ///
    /// The name of the file contains the process id and the time in nanoseconds. Another process,
    /// or a signal handler that interrupts this thread, therefore uses a file with another name.
    fn create_draft(&mut self, pid: u32, mode: Option<libc::mode_t>) -> Option<Draft> {
        let folder = self.open_folder()?;
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` is valid for writes.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
        let mut name = [0; DRAFT_NAME];
        let (seconds, nanos) = (now.tv_sec, now.tv_nsec);
        let is_named = write!(&mut name[..], ".obmalloc-{pid}-{seconds}-{nanos}.tmp\0").is_ok();
        let mut draft = Draft { folder, name, fd: -1 };
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
        if is_named {
            // SAFETY: the name is a C string, and the folder is open.
            draft.fd = unsafe { libc::openat(folder, draft.name(), flags, 0o666) };
        }
        if draft.fd < 0 {
            close(folder);
            return None;
        }
        if let Some(mode) = mode {
            // SAFETY: the call accesses no memory. If it fails, the file has the mode of a new one.
            unsafe { libc::fchmod(draft.fd, mode) };
        }
        Some(draft)
    }

    /// Opens the folder that contains the file.
    fn open_folder(&mut self) -> Option<c_int> {
        let name = 1 + self.bytes[..self.len].iter().rposition(|byte| *byte == b'/')?;
        let first = self.bytes[name];
        self.bytes[name] = 0;
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: the path is a C string.
        let folder = unsafe { libc::open(self.as_c(), flags) };
        self.bytes[name] = first;
        (folder >= 0).then_some(folder)
    }

    /// Returns true if the name ends with `.json`.
    pub fn is_json(&self) -> bool {
        self.bytes[..self.len].ends_with(b".json")
    }

    /// Returns the path with each `%p` replaced by `pid`, or `None` if it would be too long.
    pub fn of_process(&self, pid: u32) -> Option<Self> {
        let mut path = Self::EMPTY;
        let mut left = &self.bytes[..self.len];
        while let Some((byte, rest)) = left.split_first() {
            if let Some(rest) = left.strip_prefix(b"%p") {
                write!(path, "{pid}").ok()?;
                left = rest;
            } else if path.push(*byte) {
                left = rest;
            } else {
                return None;
            }
        }
        Some(path)
    }

    /// Returns the path as a C string.
    pub fn as_c(&self) -> *const libc::c_char {
        self.bytes.as_ptr().cast()
    }
}

/// A file that is written under a name of its own before it replaces another file.
struct Draft {
    /// The descriptor of the folder.
    folder: c_int,
    /// The name in the folder, as a C string.
    ///
    /// # Invariant
    ///
    /// The last byte is zero.
    name: [u8; DRAFT_NAME],
    /// The descriptor of the file.
    fd: c_int,
}

/// The size of the buffer for a name such as `.obmalloc-4194304-1000000000-999999999.tmp`.
const DRAFT_NAME: usize = 80;

impl Draft {
    fn name(&self) -> *const c_char {
        self.name.as_ptr().cast()
    }

    /// Renames the draft to `path`, and returns true if this succeeded.
    fn rename_to(&self, path: &Path) -> bool {
        // SAFETY: both names are C strings.
        unsafe { libc::renameat(self.folder, self.name(), libc::AT_FDCWD, path.as_c()) == 0 }
    }

    /// Copies the contents to the open file `to`, and closes that file. Returns true if this
    /// succeeded.
    ///
    /// A file cannot be replaced if it is the mount point of a container, for example.
    fn copy_to(&self, to: c_int) -> bool {
        if to < 0 {
            return false;
        }
        // SAFETY: the file is open, and this function closes it after the last write.
        let mut output = unsafe { Output::new(to) };
        let (mut bytes, mut offset) = ([0; 512], 0);
        let is_read = loop {
            // SAFETY: the buffer has 512 bytes.
            let read = unsafe { libc::pread(self.fd, bytes.as_mut_ptr().cast(), 512, offset) };
            match usize::try_from(read) {
                Ok(0) => break true,
                Ok(read) => output.write_bytes(&bytes[..read]),
                Err(_) => break false,
            }
            offset += read as libc::off_t;
        };
        let is_written = output.finish();
        close(to);
        is_read && is_written
    }

    /// Closes the draft. Removes its file if it was not renamed.
    fn discard(self) {
        close(self.fd);
        // SAFETY: the name is a C string.
        unsafe { libc::unlinkat(self.folder, self.name(), 0) };
        close(self.folder);
    }
}

/// Calls `write` with a writer for the open file. Returns true if everything was written.
fn write_to(file: c_int, is_json: bool, write: impl FnOnce(&mut Output<'_>, bool)) -> bool {
    // SAFETY: every caller owns the open file, and closes it only after this call.
    let mut output = unsafe { Output::new(file) };
    write(&mut output, is_json);
    output.finish()
}

/// Closes a file if `file` is an open one.
fn close(file: c_int) {
    if file >= 0 {
        // SAFETY: every caller has opened the file, and does not use it again.
        unsafe { libc::close(file) };
    }
}

impl Write for Path {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| self.push(byte)) { Ok(()) } else { Err(fmt::Error) }
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Path({self})")
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes[..self.len].utf8_chunks().try_for_each(|chunk| f.write_str(chunk.valid()))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
        path::PathBuf,
        process, thread,
    };

    use super::*;

    fn of(value: &str) -> Place {
        Place::of("X", value.as_bytes()).unwrap()
    }

    fn path(value: &str) -> Path {
        match of(value) {
            Place::File(path) => path,
            other => panic!("{value} is {other:?}"),
        }
    }

    #[test]
    fn words_switch_the_statistics_in_upper_or_lower_case() {
        for word in ["1", "true", "yes", "on", "TRUE", "Yes", "oN"] {
            assert_eq!(of(word), Place::Stderr, "{word}");
        }
        for word in ["", "0", "false", "no", "off", "FALSE", "No", "oFF"] {
            assert_eq!(of(word), Place::Nowhere, "{word}");
        }
        for word in ["truely", "2"] {
            let error = Place::of("X", word.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("(known: 0, false, "), "{error}");
        }
    }

    #[test]
    fn a_path_can_contain_the_process_id_and_determines_the_format() {
        let place = path("/tmp/a%p-%p%.json");
        assert_eq!(place.of_process(12).unwrap().to_string(), "/tmp/a12-12%.json");
        assert!(place.is_json() && !path("out.txt").is_json());
    }

    #[test]
    fn a_path_that_the_process_id_makes_too_long_is_not_used() {
        let place = path(&format!("{}/%p", "/x".repeat(LONGEST / 2 - 3)));
        assert_eq!(place.of_process(1).unwrap().len, LONGEST - 4);
        assert!(place.of_process(1_000_000).is_none());
    }

    #[test]
    fn a_relative_path_begins_at_the_current_directory() {
        let here = std::env::current_dir().unwrap();
        for name in ["out.txt", "./on", "%p"] {
            let expected = format!("{}/{name}", here.display());
            assert_eq!(path(name).to_string(), expected);
        }
    }

    #[test]
    fn statistics_with_a_path_that_is_too_long_go_to_stderr() {
        assert_eq!(of(&"/x".repeat(LONGEST / 2)), Place::Stderr);
        assert_eq!(path(&"/x".repeat(LONGEST / 2 - 1)).len, LONGEST - 2);
    }

    /// Returns a new folder for one test.
    fn folder(test: &str) -> PathBuf {
        let folder = env::temp_dir().join(format!("obmalloc-host-{test}-{}", process::id()));
        fs::create_dir(&folder).unwrap();
        folder
    }

    fn write(file: &std::path::Path, text: &str) {
        of(file.to_str().unwrap()).write(process::id(), |out, _| out.write_str(text).unwrap());
    }

    /// Regression test: an earlier version emptied the file that contained the old report, and then
    /// wrote the new report into it. Meanwhile, a reader could see an incomplete report. If a
    /// signal ended the process during this time, the report stayed incomplete.
    #[test]
    fn a_reader_sees_the_old_report_until_the_new_one_is_complete() {
        let folder = folder("old");
        let file = folder.join("report.json");
        write(&file, "first");
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        of(file.to_str().unwrap()).write(process::id(), |out, _| {
            out.write_str(&"x".repeat(5000)).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), "first");
        });
        assert_eq!(fs::read_to_string(&file).unwrap(), "x".repeat(5000));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no other file is left");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_symbolic_link_stays_a_link_to_the_report() {
        let folder = folder("link");
        let (file, link) = (folder.join("report"), folder.join("link.txt"));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, "report");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "report");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn every_name_of_a_file_leads_to_the_new_report() {
        let folder = folder("names");
        let (file, other) = (folder.join("report.txt"), folder.join("other.txt"));
        write(&file, "first");
        fs::hard_link(&file, &other).unwrap();
        write(&file, "second");
        assert_eq!(fs::read_to_string(&other).unwrap(), "second");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_draft_that_cannot_be_renamed_is_copied() {
        let folder = folder("copy");
        let file = folder.join("report.txt");
        write(&file, "old");
        let mut path = path(file.to_str().unwrap());
        let draft = path.create_draft(process::id(), None).unwrap();
        let text = "x".repeat(3000);
        assert!(write_to(draft.fd, false, |out, _| out.write_str(&text).unwrap()));
        assert!(draft.copy_to(path.open_directly()) && !draft.copy_to(-1));
        draft.discard();
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no other file is left");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_fifo_passes_the_report_to_its_reader() {
        let folder = folder("fifo");
        let file = folder.join("fifo.txt");
        // SAFETY: the path is a C string.
        assert_eq!(unsafe { libc::mkfifo(path(file.to_str().unwrap()).as_c(), 0o600) }, 0);
        let reader = {
            let file = file.clone();
            thread::spawn(move || fs::read_to_string(file).unwrap())
        };
        write(&file, "report");
        assert_eq!(reader.join().unwrap(), "report");
        fs::remove_dir_all(folder).unwrap();
    }
}
