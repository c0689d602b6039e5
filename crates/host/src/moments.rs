//! The moments at which reports are written. An environment variable selects them.

#![forbid(unsafe_code)]

use std::{fmt, time::Duration};

use libc::c_int;

use crate::words::{OFF, UnknownWord, is_one_of, plain_number};

/// The moments at which reports are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moments {
    /// At exit, including an exit by `_exit`.
    pub exit: bool,
    /// When a signal ends the process.
    pub termination: bool,
    /// When the process receives this signal. The program itself does not receive the signal.
    pub signal: Option<c_int>,
    /// Periodically, with this time between two reports.
    pub interval: Option<Duration>,
}

/// What caused a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The process exits.
    Exit,
    /// This signal ends the process.
    Termination(c_int),
    /// The process received this signal.
    Signal(c_int),
    /// The interval has passed.
    Interval,
}

const KNOWN: &str = "off, exit, termination, a signal such as SIGUSR2, an interval such as 10s or \
                     500ms, and several of these with commas between them, but at most one signal \
                     and one interval";

const KNOWN_SIGNALS: &str = "off, USR1, USR2, HUP, QUIT, URG, WINCH, IO, ALRM, PROF, these names \
                             after SIG, and the number of a signal that can be caught";

const SIGNALS: [(&str, c_int); 9] = [
    ("SIGUSR1", libc::SIGUSR1),
    ("SIGUSR2", libc::SIGUSR2),
    ("SIGHUP", libc::SIGHUP),
    ("SIGQUIT", libc::SIGQUIT),
    ("SIGURG", libc::SIGURG),
    ("SIGWINCH", libc::SIGWINCH),
    ("SIGIO", libc::SIGIO),
    ("SIGALRM", libc::SIGALRM),
    ("SIGPROF", libc::SIGPROF),
];

/// Returns the signal that the interval timer sends.
pub(crate) fn timer_signal() -> c_int {
    libc::SIGRTMAX() - 1
}

impl Moments {
    /// Returns true if reports at these moments need `signal`.
    pub fn uses(&self, signal: c_int) -> bool {
        self.signal == Some(signal) || (self.interval.is_some() && signal == timer_signal())
    }

    /// Only at exit.
    pub const EXIT: Self = Self { exit: true, ..Self::NEVER };

    const NEVER: Self = Self { exit: false, termination: false, signal: None, interval: None };

    /// Interprets the value of the variable `setting`. An empty value means [`EXIT`](Self::EXIT).
    ///
    /// # Errors
    ///
    /// Returns an error that lists the known words if one is unknown.
    pub fn of<'v>(setting: &'static str, value: &'v [u8]) -> Result<Self, UnknownWord<'v>> {
        if value.is_empty() {
            return Ok(Self::EXIT);
        }
        let mut moments = Self::NEVER;
        if is_one_of(value, &OFF) {
            return Ok(moments);
        }
        for word in value.split(|byte| *byte == b',') {
            let unknown = UnknownWord::new(setting, word, KNOWN);
            if is_one_of(word, &["exit"]) {
                moments.exit = true;
            } else if is_one_of(word, &["termination"]) {
                moments.termination = true;
            } else if let Some(signal) = named_signal(word) {
                if moments.signal.replace(signal).is_some() {
                    return Err(UnknownWord { fault: "second signal", ..unknown });
                }
            } else if let Some(interval) = interval(word) {
                if moments.interval.replace(interval).is_some() {
                    return Err(UnknownWord { fault: "second interval", ..unknown });
                }
            } else {
                return Err(unknown);
            }
        }
        Ok(moments)
    }
}

/// Returns the signal whose name or number is `value`, such as `USR1` or `10`.
///
/// Returns `None` if `value` is empty or a word such as `off`, which switches the setting off.
/// `setting` is the name of the environment variable that contained `value`. The name is used only
/// in error messages.
///
/// # Errors
///
/// Returns an error that lists the known words if `value` specifies no signal.
pub fn signal<'v>(
    setting: &'static str,
    value: &'v [u8],
) -> Result<Option<c_int>, UnknownWord<'v>> {
    if is_one_of(value, &OFF) {
        return Ok(None);
    }
    let signal = named_signal(value).or_else(|| plain_number(value).filter(can_be_caught));
    signal.map(Some).ok_or(UnknownWord::new(setting, value, KNOWN_SIGNALS))
}

/// Returns the signal with this name, which may lack its prefix `SIG`.
fn named_signal(word: &[u8]) -> Option<c_int> {
    let is_named = |name: &str| is_one_of(word, &[name, name.strip_prefix("SIG").unwrap_or(name)]);
    SIGNALS.iter().find(|(name, _)| is_named(name)).map(|(_, signal)| *signal)
}

/// Returns true if a program can handle the signal. The C library uses those between the standard
/// signals and `SIGRTMIN` itself.
fn can_be_caught(signal: &c_int) -> bool {
    let is_standard = (1..32).contains(signal) && ![libc::SIGKILL, libc::SIGSTOP].contains(signal);
    is_standard || (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(signal)
}

/// Returns the interval that `word` specifies, or `None` if it is 0 or not an interval.
fn interval(word: &[u8]) -> Option<Duration> {
    let (digits, unit): (_, fn(u64) -> Duration) = match word {
        [digits @ .., b'm', b's'] => (digits, Duration::from_millis),
        [digits @ .., b's'] => (digits, Duration::from_secs),
        _ => return None,
    };
    plain_number(digits).filter(|number| *number > 0).map(unit)
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit => f.write_str("exit"),
            Self::Interval => f.write_str("interval"),
            Self::Termination(signal) => write!(f, "termination by signal {signal}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_value_reports_are_written_at_exit() {
        assert_eq!(Moments::of("X", b""), Ok(Moments::EXIT));
        assert_eq!(Moments::of("X", b"exit"), Ok(Moments::EXIT));
        assert_eq!(Moments::of("X", b"off"), Ok(Moments::NEVER));
    }

    #[test]
    fn several_moments_can_be_combined() {
        let expected = Moments {
            exit: true,
            termination: true,
            signal: Some(libc::SIGUSR2),
            interval: Some(Duration::from_millis(500)),
        };
        assert_eq!(Moments::of("X", b"exit,termination,SIGUSR2,500ms"), Ok(expected));
        assert_eq!(Moments::of("X", b"500ms,usr2,Termination,EXIT"), Ok(expected));
        assert_eq!(Moments::of("X", b"10s").unwrap().interval, Some(Duration::from_secs(10)));
    }

    #[test]
    fn an_unknown_word_is_refused_with_the_known_ones() {
        for value in ["exit,atexit", "SIGKILL", "5", "0s", "+5s", "s", "exit,"] {
            let error = Moments::of("OBMALLOC_STATS_ON", value.as_bytes()).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("OBMALLOC_STATS_ON: unknown value \""), "{text}");
            assert!(text.contains("(known: off, exit, termination, a signal"), "{text}");
        }
    }

    #[test]
    fn a_second_signal_and_a_second_interval_are_refused() {
        for (value, start) in [
            ("USR1,USR2", "OBMALLOC_STATS_ON: second signal \"USR2\" (known: "),
            ("1s,exit,2s", "OBMALLOC_STATS_ON: second interval \"2s\" (known: "),
        ] {
            let error = Moments::of("OBMALLOC_STATS_ON", value.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
            assert!(error.ends_with("but at most one signal and one interval)"), "{error}");
        }
    }

    #[test]
    fn a_signal_has_a_name_or_the_number_of_a_signal_that_can_be_caught() {
        for value in ["10", "USR1", "SIGUSR1", "usr1"] {
            assert_eq!(signal("X", value.as_bytes()), Ok(Some(libc::SIGUSR1)), "{value}");
        }
        assert_eq!(signal("X", b"64"), Ok(Some(64)));
        for value in ["", "0", "off"] {
            assert_eq!(signal("X", value.as_bytes()), Ok(None), "{value}");
        }
        for value in ["FOO", "SIGKILL", "9", "33", "65", "9999", "-10", "+10"] {
            let error = signal("X", value.as_bytes()).unwrap_err().to_string();
            let expected = format!("X: unknown value \"{value}\" (known: off, USR1, USR2, ");
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn the_known_signals_are_listed() {
        for (name, _) in SIGNALS {
            assert!(KNOWN_SIGNALS.contains(name.strip_prefix("SIG").unwrap()), "{name}");
        }
    }
}
