//! The settings of this library, which the README lists.

#![forbid(unsafe_code)]

use std::{
    env,
    ffi::{OsStr, OsString, c_int},
    os::unix::ffi::OsStrExt,
    sync::Arc,
    time::Duration,
};

pub(crate) use host::Switch;
use host::{Decay, Moments, Place, UnknownWord};
use raw_mem::{HugePages, Limits};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `Err` if the value is unknown. The text lists the known values.
    pub(crate) switch: Result<Switch, String>,
    /// The place to which statistics are written, if they are requested.
    pub(crate) stats: Option<Arc<Place>>,
    /// The time after which unused memory is returned to the system. `None` means never.
    pub(crate) decay: Option<Duration>,
    pub(crate) huge_pages: HugePages,
    /// True if the heap is trimmed while memory is short.
    pub(crate) trim_when_short: bool,
    /// The signal that trims the heap.
    pub(crate) trim_signal: Option<c_int>,
    /// True if each full garbage collection trims the heap.
    pub(crate) trim_after_gc: bool,
    /// True if the process has a status page.
    pub(crate) status: bool,
    /// The moments at which statistics are written.
    pub(crate) moments: Moments,
    /// The limits on the bytes of the domains mem and obj together.
    pub(crate) limits: Limits,
    /// Messages about settings that are ignored because their values are unknown.
    pub(crate) errors: Vec<String>,
    /// True if one of our environment variables is set to a value that is not empty.
    ///
    /// We report a replaced heap or a CPython that was loaded too late only if this field is true.
    pub(crate) any: bool,
}

impl Settings {
    pub(crate) fn from_env() -> Self {
        Self::read(env::vars_os().filter(|(name, _)| is_ours(name)))
    }

    fn read(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut any = false;
        let [mut switch, mut stats, mut decay, mut trim_signal, mut trim_after_gc] =
            [(); 5].map(|()| OsString::new());
        let [mut moments, mut limit, mut soft_limit, mut huge_pages, mut when_short, mut status] =
            [(); 6].map(|()| OsString::new());
        for (name, value) in variables {
            any |= !value.is_empty();
            let setting = match name.as_bytes() {
                b"OBMALLOC" => &mut switch,
                b"OBMALLOC_STATS" => &mut stats,
                b"OBMALLOC_STATS_ON" => &mut moments,
                b"OBMALLOC_DECAY" => &mut decay,
                b"OBMALLOC_TRIM_SIGNAL" => &mut trim_signal,
                b"OBMALLOC_TRIM_AFTER_GC" => &mut trim_after_gc,
                b"OBMALLOC_STATUS" => &mut status,
                b"OBMALLOC_LIMIT" => &mut limit,
                b"OBMALLOC_SOFT_LIMIT" => &mut soft_limit,
                b"OBMALLOC_HUGE_PAGES" => &mut huge_pages,
                b"OBMALLOC_TRIM_WHEN_SHORT" => &mut when_short,
                _ => continue,
            };
            *setting = value;
        }
        let mut errors = Vec::new();
        let moments = known(Moments::of("OBMALLOC_STATS_ON", moments.as_bytes()), &mut errors);
        let hard = ("OBMALLOC_LIMIT", limit.as_bytes());
        let soft = ("OBMALLOC_SOFT_LIMIT", soft_limit.as_bytes());
        let limits = host::limits(hard, soft, |unknown| errors.push(unknown.to_string()));
        let stats = (!stats.is_empty()).then(|| place(&stats, &mut errors)).flatten();
        let after_gc = host::switch("OBMALLOC_TRIM_AFTER_GC", trim_after_gc.as_bytes());
        let signal = host::signal("OBMALLOC_TRIM_SIGNAL", trim_signal.as_bytes());
        let mut trim_signal = known(signal, &mut errors).flatten();
        let is_taken = |signal| moments.as_ref().is_some_and(|on| on.uses(signal));
        if stats.is_some() && trim_signal.is_some_and(is_taken) {
            let why = "OBMALLOC_TRIM_SIGNAL is ignored, because OBMALLOC_STATS_ON uses the signal";
            errors.push(why.to_owned());
            trim_signal = None;
        }
        let status = host::switch("OBMALLOC_STATUS", status.as_bytes());
        let huge_pages = host::huge_pages("OBMALLOC_HUGE_PAGES", huge_pages.as_bytes());
        let when_short = host::switch("OBMALLOC_TRIM_WHEN_SHORT", when_short.as_bytes());
        let decay = match known(Decay::of(decay.as_bytes()), &mut errors) {
            Some(Decay::After(time)) => Some(time),
            Some(Decay::Never) => None,
            Some(Decay::Default) | None => Some(DECAY),
        };
        Self {
            switch: Switch::of(switch.as_bytes()).map_err(|unknown| unknown.to_string()),
            stats,
            decay,
            huge_pages: known(huge_pages, &mut errors).unwrap_or_default(),
            trim_when_short: known(when_short, &mut errors).unwrap_or_default(),
            trim_signal,
            trim_after_gc: known(after_gc, &mut errors).unwrap_or_default(),
            status: known(status, &mut errors).unwrap_or_default(),
            moments: moments.unwrap_or(Moments::EXIT),
            limits,
            errors,
            any,
        }
    }

    pub(crate) fn is_silent(&self) -> bool {
        matches!(self.switch, Ok(Switch::Quiet | Switch::Off))
    }
}

/// The decay time if the user has not chosen one.
const DECAY: Duration = Duration::from_secs(1);

/// Returns the place that the value of `OBMALLOC_STATS` specifies, or `None` for nowhere.
///
/// This function is not inlined. A [`Place`] takes 4 KiB on the stack, and most processes need
/// none.
#[inline(never)]
fn place(value: &OsStr, errors: &mut Vec<String>) -> Option<Arc<Place>> {
    let place = known(Place::of("OBMALLOC_STATS", value.as_bytes()), errors)?;
    (!matches!(place, Place::Nowhere)).then(|| Arc::new(place))
}

fn known<T>(value: Result<T, UnknownWord<'_>>, errors: &mut Vec<String>) -> Option<T> {
    value.inspect_err(|why| errors.push(why.to_string())).ok()
}

fn is_ours(name: &OsStr) -> bool {
    let tail = name.as_bytes().strip_prefix(b"OBMALLOC");
    tail.is_some_and(|tail| tail.is_empty() || tail.starts_with(b"_"))
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
            switch: Ok(Switch::On),
            stats: None,
            decay: Some(DECAY),
            huge_pages: HugePages::Off,
            trim_when_short: false,
            trim_signal: None,
            trim_after_gc: false,
            status: false,
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
            assert_eq!(read.errors.len(), usize::from(text == "soon"), "{text}");
        }
    }

    #[test]
    fn an_unknown_value_of_each_setting_is_an_error_and_leaves_the_default() {
        for name in [
            "STATS",
            "STATS_ON",
            "STATUS",
            "LIMIT",
            "SOFT_LIMIT",
            "DECAY",
            "TRIM_SIGNAL",
            "TRIM_AFTER_GC",
            "HUGE_PAGES",
        ] {
            let name = format!("OBMALLOC_{name}");
            let variable = [(OsString::from(&name), "what".into())];
            let read = Settings::read(variable.into_iter());
            let expected = format!("{name}: unknown value \"what\" (known: ");
            assert!(read.errors[0].starts_with(&expected), "{read:?}");
            let without = Settings { errors: Vec::new(), any: false, ..read };
            assert_eq!(without, self::read(None, None));
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
    fn no_other_word_is_mistaken_for_a_switch() {
        assert_eq!(read(Some("quiet"), None).switch, Ok(Switch::Quiet));
        assert_eq!(read(Some("strict"), None).switch, Ok(Switch::Strict));
        assert_eq!(read(Some("off"), None).switch, Ok(Switch::Off));
        let unknown = "OBMALLOC: unknown value \"OFF\" (known: on, strict, quiet, debug, off)";
        assert_eq!(read(Some("OFF"), None).switch, Err(unknown.into()));
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
    fn statistics_go_to_the_place_that_the_variable_names() {
        assert_eq!(read(None, Some("1")).stats.as_deref(), Some(&Place::Stderr));
        assert_eq!(read(None, Some("off")).stats, None);
        let place = read(None, Some("/tmp/%p.json")).stats.unwrap();
        assert!(matches!(&*place, Place::File(path) if path.is_json()));
    }
}
