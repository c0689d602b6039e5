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
                     500ms, and several of these with commas between them";

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

impl Moments {
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
            let signal = SIGNALS.iter().find(|(name, _)| {
                let short = name.strip_prefix("SIG").unwrap_or(name);
                is_one_of(word, &[name, short])
            });
            if is_one_of(word, &["exit"]) {
                moments.exit = true;
            } else if is_one_of(word, &["termination"]) {
                moments.termination = true;
            } else if let Some((_, signal)) = signal {
                moments.signal = Some(*signal);
            } else if let Some(interval) = interval(word) {
                moments.interval = Some(interval);
            } else {
                return Err(UnknownWord { setting, word, known: KNOWN });
            }
        }
        Ok(moments)
    }
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
}
