//! Running processes, as `/proc` shows them.

#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::{reports::Report, started::Started, system};

/// The start of the file name of the library for CPython.
const LIBRARY: &[u8] = b"libobmalloc_cpython";

/// A snapshot of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) program: PathBuf,
    /// The command line, shortened to a maximum length.
    pub(crate) command: String,
    pub(crate) is_python: bool,
    /// True if the library for CPython is mapped.
    pub(crate) has_library: bool,
    /// True if the process was started with our library in `LD_PRELOAD`.
    pub(crate) was_preloaded: bool,
    pub(crate) started: Started,
    /// The latest figures on the status page of the process, if it has a page.
    pub(crate) published: Option<Report>,
}

impl Process {
    /// Reads the process `pid`. Returns `None` if it has ended, or belongs to another user.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let maps = fs::read(folder.join("maps")).ok()?;
        let program = fs::read_link(folder.join("exe")).ok()?;
        let variables = fs::read(folder.join("environ")).ok()?;
        let words = fs::read(folder.join("cmdline")).ok()?;
        let name = program.file_name().unwrap_or_default().as_bytes();
        let has_library = contains(&maps, LIBRARY);
        let started = Started::new(name, &maps, &words, &variables);
        let mut variables = variables.split(|byte| *byte == 0);
        Some(Self {
            pid,
            command: shown(&words),
            is_python: name.starts_with(b"python") || contains(&maps, b"/libpython3"),
            has_library,
            started,
            published: if has_library { published(pid) } else { None },
            was_preloaded: variables.any(|variable| {
                variable.starts_with(b"LD_PRELOAD=") && contains(variable, LIBRARY)
            }),
            program,
        })
    }

    /// Returns true if `other` is a later snapshot of this process, which still runs its program.
    fn is_same(&self, other: &Self) -> bool {
        // The figures change while a program runs.
        *self == Self { published: self.published.clone(), ..other.clone() }
    }
}

/// Returns the figures on the status page of the running process `pid`.
fn published(pid: u32) -> Option<Report> {
    let page = system::status_page(pid).ok().filter(|page| page.is_live())?;
    serde_json::from_slice(&page.text().read()?).ok()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn shown(words: &[u8]) -> String {
    const LONGEST: usize = 60;
    let words = words.split(|byte| matches!(byte, 0 | b'\n')).filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(|word| OsStr::from_bytes(word).to_string_lossy()).collect();
    let text = words.join(" ");
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Returns the parent of every process.
fn parents() -> BTreeMap<u32, u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name of the program is in parentheses and can contain spaces.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// A process and its descendants, as they were last seen.
#[derive(Debug, Default)]
pub(crate) struct Family {
    /// For each process id, the process and the number of times that it was seen without a change.
    members: BTreeMap<u32, (Process, usize)>,
}

impl Family {
    /// Examines `first`, and every descendant of `first` or of a known member.
    pub(crate) fn look(&mut self, first: u32) {
        let parents = parents();
        let is_member = |mut pid: u32| loop {
            if pid == first || self.members.contains_key(&pid) {
                return true;
            }
            match parents.get(&pid) {
                Some(parent) => pid = *parent,
                None => return false,
            }
        };
        let found: Vec<_> = parents.keys().copied().filter(|pid| is_member(*pid)).collect();
        for process in found.into_iter().filter_map(Process::read) {
            let before = self.members.get(&process.pid);
            let times =
                before.filter(|(known, _)| known.is_same(&process)).map_or(0, |(_, times)| *times);
            self.members.insert(process.pid, (process, times + 1));
        }
    }

    /// Returns the members that are Pythons.
    ///
    /// Leaves out a process that was seen only once, because it may still be starting or about to
    /// execute another program.
    pub(crate) fn pythons(&self) -> impl Iterator<Item = &Process> {
        let members = self.members.values().filter(|(_, times)| *times > 1);
        members.map(|(process, _)| process).filter(|process| process.is_python)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{self, Command, Stdio};

    use super::*;

    #[test]
    fn this_process_is_read() {
        let own = Process::read(process::id()).unwrap();
        assert!(!own.has_library && !own.is_python && !own.command.is_empty());
        assert_eq!(own.program, std::env::current_exe().unwrap());
        assert_eq!(Process::read(u32::MAX), None);
    }

    #[test]
    fn new_figures_do_not_make_another_process() {
        let own = Process::read(process::id()).unwrap();
        let text = r#"{"in_force": true, "reason": null, "domains": {}, "served": null}"#;
        let later = Process { published: serde_json::from_str(text).ok(), ..own.clone() };
        assert!(later.published.is_some() && own.is_same(&later));
        assert!(!own.is_same(&Process { command: "other".to_owned(), ..later }));
    }

    #[test]
    fn a_grandchild_is_a_member_of_the_family() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 50 & echo; wait"]).stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let mut family = Family::default();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let is_sleep = |(process, _): &(Process, usize)| process.command == "sleep 50";
        while !family.members.values().any(is_sleep) {
            assert!(std::time::Instant::now() < deadline, "{family:?}");
            family.look(shell.id());
        }
        let sleep = family.members.values().find(|member| is_sleep(member)).unwrap().0.pid;
        let _ = Command::new("kill").arg(sleep.to_string()).status();
        shell.wait().unwrap();
    }

    #[test]
    fn a_long_command_line_is_shortened() {
        assert_eq!(shown(b"python3\0-c\0a\nb\0"), "python3 -c a b");
        assert_eq!(shown("ü".repeat(99).as_bytes()), format!("{}…", "ü".repeat(60)));
    }
}
