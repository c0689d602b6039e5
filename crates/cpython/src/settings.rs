//! What the user asks of this library.
//!
//! | variable | value | meaning |
//! | --- | --- | --- |
//! | `OBMALLOC` | unset, empty, `on` | install; where that cannot be right, say why in one line |
//! | | `quiet` | install; where that cannot be right, say nothing |
//! | | `off` | leave CPython as it is, and say nothing |
//! | `OBMALLOC_STATS` | unset, empty, `0` | no statistics |
//! | | `1` | statistics as text to stderr, at exit |
//! | | a path | statistics to that file, at exit; as JSON if the path ends in `.json` |
//!
//! If the heap is refused, one line on stderr says why. If it has been replaced by the time the
//! process exits, or if CPython was loaded too late, the line appears only if one of these
//! variables, or another whose name begins with `OBMALLOC_`, is set. `off` and `quiet` suppress all
//! of these lines.
//!
//! `%p` in the path is the process: a program that starts other Pythons should have it, or the
//! last one to end leaves the file.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

/// The settings of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) switch: Switch,
    pub(crate) quiet: bool,
    pub(crate) stats: Option<StatsPlace>,
    /// A variable of ours has a value, so the user expects something of this library.
    pub(crate) any: bool,
}

/// Whether to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    On,
    Off,
    /// A value that this library does not know.
    Unknown(OsString),
}

/// Where the statistics go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StatsPlace {
    Stderr,
    /// The bytes of a path, with `%p` for the process.
    File(OsString),
}

impl Settings {
    pub(crate) fn from_env() -> Self {
        Self::read(env::vars_os().filter(|(name, _)| is_ours(name)))
    }

    fn read(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let (mut switch, mut stats, mut any) = (None, None, false);
        for (name, value) in variables {
            any |= !value.is_empty();
            match name.as_bytes() {
                b"OBMALLOC" => switch = Some(value),
                b"OBMALLOC_STATS" => stats = Some(value),
                _ => (),
            }
        }
        let value = switch.unwrap_or_default();
        let switch = match value.as_bytes() {
            b"" | b"on" | b"quiet" => Switch::On,
            b"off" => Switch::Off,
            _ => Switch::Unknown(value.clone()),
        };
        let stats = stats.and_then(|place| match place.as_bytes() {
            b"" | b"0" => None,
            b"1" => Some(StatsPlace::Stderr),
            _ => Some(StatsPlace::File(absolute(place))),
        });
        Self { switch, quiet: value == "quiet", stats, any }
    }

    /// Returns true if nothing is said about a heap that is not in force.
    pub(crate) fn is_silent(&self) -> bool {
        self.quiet || self.switch == Switch::Off
    }
}

/// Returns true for `OBMALLOC` and for every name that begins with `OBMALLOC_`.
fn is_ours(name: &OsStr) -> bool {
    let rest = name.as_bytes().strip_prefix(b"OBMALLOC");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"_"))
}

/// The path from the root: at exit the program may stand in another folder.
fn absolute(path: OsString) -> OsString {
    std::path::absolute(&path).map_or(path, PathBuf::into_os_string)
}

impl StatsPlace {
    /// The file, for the process `pid`; `None` for stderr.
    pub(crate) fn path(&self, pid: u32) -> Option<PathBuf> {
        let Self::File(template) = self else { return None };
        let pid = pid.to_string();
        let mut path = Vec::new();
        let mut rest = template.as_bytes();
        while let Some(at) = rest.windows(2).position(|pair| pair == b"%p") {
            path.extend_from_slice(&rest[..at]);
            path.extend_from_slice(pid.as_bytes());
            rest = &rest[at + 2..];
        }
        path.extend_from_slice(rest);
        Some(PathBuf::from(OsString::from_vec(path)))
    }

    /// The statistics are written as JSON, not as text.
    pub(crate) fn is_json(&self) -> bool {
        let json: &OsStr = OsStr::new(".json");
        matches!(self, Self::File(template) if template.as_bytes().ends_with(json.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(switch: Option<&str>, stats: Option<&str>) -> Settings {
        let variables = [("OBMALLOC", switch), ("OBMALLOC_STATS", stats)];
        let set = variables.into_iter().filter_map(|(name, value)| Some((name, value?)));
        Settings::read(set.map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn without_variables_the_heap_is_installed_without_statistics() {
        let expected = Settings { switch: Switch::On, quiet: false, stats: None, any: false };
        assert_eq!(read(None, None), expected);
        assert_eq!(read(Some(""), Some("")), expected);
        let any = Settings { any: true, ..expected };
        assert_eq!(read(Some("on"), Some("0")), any);
    }

    #[test]
    fn it_can_be_quiet_or_off_and_no_other_word_is_taken_for_either() {
        assert_eq!(read(Some("quiet"), None).switch, Switch::On);
        assert!(read(Some("quiet"), None).quiet);
        assert_eq!(read(Some("off"), None).switch, Switch::Off);
        assert_eq!(read(Some("OFF"), None).switch, Switch::Unknown("OFF".into()));
    }

    #[test]
    fn a_variable_is_ours_by_its_whole_name_or_the_part_before_an_underscore() {
        let is_ours = |name: &str| is_ours(OsStr::new(name));
        assert!(is_ours("OBMALLOC") && is_ours("OBMALLOC_STATS") && is_ours("OBMALLOC_"));
        assert!(!is_ours("OBMALLOCS") && !is_ours("PYTHONMALLOC") && !is_ours(""));
    }

    #[test]
    fn off_and_quiet_are_silent() {
        assert!(read(Some("off"), Some("1")).is_silent() && read(Some("quiet"), None).is_silent());
        assert!(!read(Some("on"), None).is_silent() && !read(None, Some("1")).is_silent());
        assert!(!read(Some("of"), None).is_silent());
    }

    #[test]
    fn a_path_names_the_process_and_the_format() {
        let place = read(None, Some("/tmp/a%p-%p%.json")).stats.unwrap();
        assert_eq!(place.path(12), Some(PathBuf::from("/tmp/a12-12%.json")));
        assert!(place.is_json());
        assert!(!read(None, Some("out.txt")).stats.unwrap().is_json());
        assert_eq!(read(None, Some("1")).stats.unwrap().path(12), None);
    }
}
