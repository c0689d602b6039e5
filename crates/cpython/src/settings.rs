//! The settings of this library, which the README lists.

#![forbid(unsafe_code)]

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
    time::Duration,
};

use host::{Moments, Place, UnknownWord};
use raw_mem::{HugePages, Limits};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) switch: Switch,
    pub(crate) stats: Option<StatsPlace>,
    /// The time after which unused memory goes back to the system. `None` means never.
    pub(crate) decay: Option<Duration>,
    pub(crate) huge_pages: HugePages,
    /// True if the heap is trimmed while memory is short.
    pub(crate) trim_when_short: bool,
    /// The number of the signal that trims the heap, or its name in Python's module `signal`.
    pub(crate) trim_signal: Option<String>,
    /// True if each full garbage collection trims the heap.
    pub(crate) trim_after_gc: bool,
    /// When statistics are written.
    pub(crate) moments: Moments,
    /// The limits on the bytes of the domains mem and obj together.
    pub(crate) limits: Limits,
    /// What is wrong with settings that are ignored, because their values are unknown.
    pub(crate) errors: Vec<String>,
    /// True if one of our environment variables is set to a value that is not empty.
    ///
    /// A replaced heap or a CPython that was loaded too late is reported only if this is true.
    pub(crate) any: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    On,
    /// Installs the heap in a version of CPython that this library knows, or ends the process.
    Strict,
    Quiet,
    /// The heap with debug hooks, as with `PYTHONMALLOC=debug`.
    Debug,
    Off,
    Unknown(OsString),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StatsPlace {
    Stderr,
    /// A path, in which `%p` stands for the process id.
    File(OsString),
}

impl Settings {
    pub(crate) fn from_env() -> Self {
        Self::read(env::vars_os().filter(|(name, _)| is_ours(name)))
    }

    fn read(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let (mut switch, mut stats, mut any) = (OsString::new(), OsString::new(), false);
        let (mut decay, mut trim_signal, mut trim_after_gc) = (Some(DECAY), None, false);
        let [mut moments, mut limit, mut soft_limit, mut huge_pages, mut when_short] =
            [(); 5].map(|()| OsString::new());
        for (name, value) in variables {
            any |= !value.is_empty();
            match name.as_bytes() {
                b"OBMALLOC" => switch = value,
                b"OBMALLOC_STATS" => stats = value,
                b"OBMALLOC_DECAY" => decay = parse_decay(&value),
                b"OBMALLOC_TRIM_SIGNAL" => trim_signal = parse_signal(&value),
                b"OBMALLOC_TRIM_AFTER_GC" => trim_after_gc = is_on(&value),
                b"OBMALLOC_HUGE_PAGES" => huge_pages = value,
                b"OBMALLOC_TRIM_WHEN_SHORT" => when_short = value,
                MOMENTS => moments = value,
                LIMIT => limit = value,
                SOFT_LIMIT => soft_limit = value,
                _ => (),
            }
        }
        let mut errors = Vec::new();
        let moments = known(Moments::of("OBMALLOC_STATS_ON", moments.as_bytes()), &mut errors);
        let hard = ("OBMALLOC_LIMIT", limit.as_bytes());
        let soft = ("OBMALLOC_SOFT_LIMIT", soft_limit.as_bytes());
        let limits = known(host::limits(hard, soft), &mut errors).unwrap_or(Limits::NONE);
        let huge_pages = host::huge_pages("OBMALLOC_HUGE_PAGES", huge_pages.as_bytes());
        let huge_pages = known(huge_pages, &mut errors).unwrap_or_default();
        let when_short = host::switch("OBMALLOC_TRIM_WHEN_SHORT", when_short.as_bytes());
        let trim_when_short = known(when_short, &mut errors).unwrap_or_default();
        let stats = (!stats.is_empty()).then(|| StatsPlace::check(stats, &mut errors)).flatten();
        let switch = match switch.as_bytes() {
            b"" | b"on" => Switch::On,
            b"strict" => Switch::Strict,
            b"quiet" => Switch::Quiet,
            b"debug" => Switch::Debug,
            b"off" => Switch::Off,
            _ => Switch::Unknown(switch),
        };
        let moments = moments.unwrap_or(Moments::EXIT);
        Self {
            switch,
            stats,
            decay,
            huge_pages,
            trim_when_short,
            trim_signal,
            trim_after_gc,
            moments,
            limits,
            errors,
            any,
        }
    }

    pub(crate) fn is_silent(&self) -> bool {
        matches!(self.switch, Switch::Quiet | Switch::Off)
    }
}

/// The decay time of a heap whose user chose none.
const DECAY: Duration = Duration::from_secs(1);

/// Returns the decay time that a number of milliseconds or the word `never` stands for.
///
/// Any other value leaves the default.
fn parse_decay(value: &OsStr) -> Option<Duration> {
    match value.to_str() {
        Some("never") => None,
        text => {
            let milliseconds = text.and_then(|text| text.parse().ok());
            Some(milliseconds.map_or(DECAY, Duration::from_millis))
        }
    }
}

/// Returns the signal that a number such as `10` or a name such as `USR1` or `SIGUSR1` stands for.
fn parse_signal(value: &OsStr) -> Option<String> {
    let text = value.to_str().filter(|text| !text.is_empty())?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.to_owned());
    }
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let is_name = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    // Python reports the signal that no name stands for.
    Some(if is_name { format!("signal.SIG{name}") } else { "signal.SIG".to_owned() })
}

fn is_on(value: &OsStr) -> bool {
    matches!(value.to_ascii_lowercase().as_bytes(), b"1" | b"true" | b"yes" | b"on")
}

const MOMENTS: &[u8] = b"OBMALLOC_STATS_ON";
const LIMIT: &[u8] = b"OBMALLOC_LIMIT";
const SOFT_LIMIT: &[u8] = b"OBMALLOC_SOFT_LIMIT";

fn known<T>(value: Result<T, UnknownWord<'_>>, errors: &mut Vec<String>) -> Option<T> {
    value.inspect_err(|why| errors.push(why.to_string())).ok()
}

fn is_ours(name: &OsStr) -> bool {
    let tail = name.as_bytes().strip_prefix(b"OBMALLOC");
    tail.is_some_and(|tail| tail.is_empty() || tail.starts_with(b"_"))
}

impl StatsPlace {
    /// Parses the value after the check that the malloc library makes too.
    ///
    /// A [`Place`] has 4 KiB, and few processes need the pages of the stack below it.
    #[inline(never)]
    fn check(value: OsString, errors: &mut Vec<String>) -> Option<Self> {
        known(Place::of("OBMALLOC_STATS", value.as_bytes()), errors)?;
        Self::parse(value)
    }

    fn parse(value: OsString) -> Option<Self> {
        match value.to_ascii_lowercase().as_bytes() {
            b"" | b"0" | b"false" | b"no" | b"off" => None,
            b"1" | b"true" | b"yes" | b"on" => Some(Self::Stderr),
            // The program may change its directory before the statistics are written.
            _ => {
                Some(Self::File(std::path::absolute(&value).map_or(value, PathBuf::into_os_string)))
            }
        }
    }

    /// Returns the path of the file for the process `pid`, or `None` for stderr.
    pub(crate) fn path(&self, pid: u32) -> Option<PathBuf> {
        let Self::File(template) = self else { return None };
        let pid = pid.to_string();
        let mut path = Vec::new();
        let mut tail = template.as_bytes();
        while let Some(at) = tail.windows(2).position(|pair| pair == b"%p") {
            path.extend_from_slice(&tail[..at]);
            path.extend_from_slice(pid.as_bytes());
            tail = &tail[at + 2..];
        }
        path.extend_from_slice(tail);
        Some(PathBuf::from(OsString::from_vec(path)))
    }

    pub(crate) fn is_json(&self) -> bool {
        matches!(self, Self::File(template) if template.as_bytes().ends_with(b".json"))
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
        let expected = Settings {
            switch: Switch::On,
            stats: None,
            decay: Some(DECAY),
            huge_pages: HugePages::Off,
            trim_when_short: false,
            trim_signal: None,
            trim_after_gc: false,
            moments: Moments::EXIT,
            limits: Limits::NONE,
            errors: Vec::new(),
            any: false,
        };
        assert_eq!(read(None, None), expected);
        assert_eq!(read(Some(""), Some("")), expected);
        let any = Settings { any: true, ..expected };
        assert_eq!(read(Some("on"), Some("0")), any);
    }

    #[test]
    fn the_decay_time_is_a_number_of_milliseconds_or_never() {
        for (text, decay) in
            [("250", Some(250)), ("0", Some(0)), ("never", None), ("soon", Some(1000))]
        {
            let variable = [("OBMALLOC_DECAY".into(), text.into())];
            let read = Settings::read(variable.into_iter());
            assert_eq!(read.decay, decay.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn huge_pages_and_trims_are_switched_by_words_and_unknown_ones_are_refused() {
        let variables = |huge: &str, short: &str| {
            let variables = [("OBMALLOC_HUGE_PAGES", huge), ("OBMALLOC_TRIM_WHEN_SHORT", short)];
            Settings::read(variables.map(|(name, value)| (name.into(), value.into())).into_iter())
        };
        let settings = variables("advise", "1");
        assert_eq!((settings.huge_pages, settings.trim_when_short), (HugePages::Advise, true));
        assert_eq!(settings.errors, Vec::<String>::new());
        let settings = variables("2M", "soon");
        assert_eq!((settings.huge_pages, settings.trim_when_short), (HugePages::Off, false));
        assert_eq!(settings.errors.len(), 2, "{settings:?}");
    }

    #[test]
    fn a_signal_has_a_number_or_a_name() {
        let names = [
            ("10", "10"),
            ("USR1", "signal.SIGUSR1"),
            ("SIGUSR2", "signal.SIGUSR2"),
            ("x) or f(", "signal.SIG"),
        ];
        for (text, signal) in names {
            let variable = [("OBMALLOC_TRIM_SIGNAL".into(), text.into())];
            let read = Settings::read(variable.into_iter());
            assert_eq!(read.trim_signal.as_deref(), Some(signal));
        }
    }

    #[test]
    fn no_other_word_is_mistaken_for_a_switch() {
        assert_eq!(read(Some("quiet"), None).switch, Switch::Quiet);
        assert_eq!(read(Some("strict"), None).switch, Switch::Strict);
        assert_eq!(read(Some("off"), None).switch, Switch::Off);
        assert_eq!(read(Some("OFF"), None).switch, Switch::Unknown("OFF".into()));
    }

    #[test]
    fn a_variable_is_ours_if_its_name_is_or_begins_with_our_prefix() {
        let is_ours = |name: &str| is_ours(OsStr::new(name));
        assert!(is_ours("OBMALLOC") && is_ours("OBMALLOC_STATS") && is_ours("OBMALLOC_"));
        assert!(!is_ours("OBMALLOCS") && !is_ours("PYTHONMALLOC") && !is_ours(""));
    }

    #[test]
    fn nothing_is_printed_with_off_and_quiet() {
        assert!(read(Some("off"), Some("1")).is_silent() && read(Some("quiet"), None).is_silent());
        assert!(!read(Some("on"), None).is_silent() && !read(None, Some("1")).is_silent());
        assert!(!read(Some("of"), None).is_silent() && !read(Some("strict"), None).is_silent());
    }

    #[test]
    fn a_path_can_contain_the_process_id_and_determines_the_format() {
        let place = read(None, Some("/tmp/a%p-%p%.json")).stats.unwrap();
        assert_eq!(place.path(12), Some(PathBuf::from("/tmp/a12-12%.json")));
        assert!(place.is_json());
        assert!(!read(None, Some("out.txt")).stats.unwrap().is_json());
        assert_eq!(read(None, Some("1")).stats.unwrap().path(12), None);
    }

    #[test]
    fn statistics_can_be_switched_by_words_in_upper_or_lower_case() {
        for word in ["1", "true", "yes", "on", "TRUE", "Yes", "oN"] {
            assert_eq!(read(None, Some(word)).stats, Some(StatsPlace::Stderr), "{word}");
        }
        for word in ["", "0", "false", "no", "off", "FALSE", "No", "oFF"] {
            assert_eq!(read(None, Some(word)).stats, None, "{word}");
        }
        for word in ["truely", "2"] {
            let settings = read(None, Some(word));
            assert_eq!(settings.stats, None, "{word}");
            assert!(settings.errors[0].contains("(known: 0, false, "), "{settings:?}");
        }
        for path in ["./on", "truely.txt", "%p"] {
            let place = read(None, Some(path)).stats;
            assert!(matches!(place, Some(StatsPlace::File(_))), "{path}");
        }
    }
}
