//! What CPython's environment and command line say about its allocators.
//!
//! | given | effect |
//! | --- | --- |
//! | `PYTHONMALLOC`, not empty | the allocator of that name replaces ours |
//! | `-X dev`, or `PYTHONDEVMODE`, not empty | without the above, the debug allocator replaces ours |
//! | `PYTHONMALLOCSTATS`, not empty | the statistics of the allocator, in CPython's format |
//! | `-E`, `-I` | the three variables are ignored |
//!
//! The command line is read as CPython's pre-initialisation reads it: options up to `-c`, `-m`,
//! `--` or the first word that is none. Source: `Python/preconfig.c` and `Python/getopt.c`.
//!
//! A program that embeds CPython may have other rules. If it is misread, nothing breaks: the heap
//! is not installed where it could have been, or CPython replaces it before the first block.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What makes CPython put its own allocators in place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undoing {
    #[error("PYTHONMALLOC={}", .0.display())]
    PythonMalloc(OsString),
    #[error("-X dev")]
    XDev,
    #[error("PYTHONDEVMODE")]
    PythonDevMode,
}

/// Options of CPython that take a word: the rest of their own, or the next one.
const WITH_WORD: &[u8] = b"cmWX";

/// Long options that take the next word.
const LONG_WITH_WORD: &[&[u8]] = &[b"--check-hash-based-pycs"];

/// The options that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Options {
    ignores_environment: bool,
    dev: bool,
}

impl Undoing {
    /// Reads this process's environment and command line.
    pub(crate) fn from_process() -> Option<Self> {
        Self::read(std::env::args_os().skip(1), |name| std::env::var_os(name))
    }

    fn read(
        args: impl Iterator<Item = OsString>,
        var: impl Fn(&str) -> Option<OsString>,
    ) -> Option<Self> {
        let options = Options::parse(args);
        let var = |name| options.variable(name, &var);
        if let Some(name) = var("PYTHONMALLOC") {
            return Some(Self::PythonMalloc(name));
        }
        if options.dev {
            return Some(Self::XDev);
        }
        var("PYTHONDEVMODE").map(|_| Self::PythonDevMode)
    }
}

/// Returns true if `PYTHONMALLOCSTATS` asks this process for statistics at exit.
pub(crate) fn asks_for_malloc_stats() -> bool {
    malloc_stats(std::env::args_os().skip(1), |name| std::env::var_os(name))
}

fn malloc_stats(
    args: impl Iterator<Item = OsString>,
    var: impl Fn(&str) -> Option<OsString>,
) -> bool {
    Options::parse(args).variable("PYTHONMALLOCSTATS", &var).is_some()
}

impl Options {
    /// Returns the value that CPython reads from a variable. CPython treats an empty value as
    /// unset.
    fn variable(&self, name: &str, var: impl Fn(&str) -> Option<OsString>) -> Option<OsString> {
        let value = if self.ignores_environment { None } else { var(name) };
        value.filter(|value| !value.is_empty())
    }

    fn parse(mut args: impl Iterator<Item = OsString>) -> Self {
        let mut options = Self::default();
        while let Some(arg) = args.next() {
            match arg.as_bytes() {
                b"--" | b"-" => break,
                [b'-', b'-', ..] => {
                    if LONG_WITH_WORD.contains(&arg.as_bytes()) {
                        args.next();
                    }
                }
                [b'-', letters @ ..] => {
                    if !options.take(letters, &mut args) {
                        break;
                    }
                }
                _ => break,
            }
        }
        options
    }

    /// Takes the options of one word; false when the options end with it.
    fn take(&mut self, letters: &[u8], args: &mut impl Iterator<Item = OsString>) -> bool {
        for (at, letter) in letters.iter().enumerate() {
            match letter {
                b'E' | b'I' => self.ignores_environment = true,
                b'c' | b'm' => return false,
                letter if WITH_WORD.contains(letter) => {
                    let rest = OsStr::from_bytes(&letters[at + 1..]);
                    let word = if rest.is_empty() { args.next() } else { Some(rest.into()) };
                    self.dev |= *letter == b'X' && word.is_some_and(|word| is_dev(&word));
                    return true;
                }
                _ => (),
            }
        }
        true
    }
}

/// The word of `-X` is `dev`, or `dev=` and anything.
fn is_dev(word: &OsStr) -> bool {
    word.as_bytes().split(|byte| *byte == b'=').next() == Some(b"dev")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undoing(args: &str, vars: &[(&str, &str)]) -> Option<String> {
        let args = args.split_whitespace().map(OsString::from);
        let var = |name: &str| {
            vars.iter().find(|(other, _)| *other == name).map(|(_, value)| OsString::from(value))
        };
        Undoing::read(args, var).map(|undoing| undoing.to_string())
    }

    #[test]
    fn nothing_is_undone_without_options_and_variables() {
        assert_eq!(undoing("", &[]), None);
        assert_eq!(undoing("-c pass", &[("PYTHONMALLOC", ""), ("PYTHONDEVMODE", "")]), None);
    }

    #[test]
    fn a_variable_counts_unless_the_environment_is_ignored() {
        let malloc = [("PYTHONMALLOC", "malloc")];
        let dev = [("PYTHONDEVMODE", "1")];
        assert_eq!(undoing("", &malloc).unwrap(), "PYTHONMALLOC=malloc");
        assert_eq!(undoing("", &dev).unwrap(), "PYTHONDEVMODE");
        for args in ["-E", "-I", "-sE x.py", "-bI -c pass", "-X utf8 -E", "-Wd -WE -E"] {
            assert_eq!(undoing(args, &malloc), None, "{args}");
            assert_eq!(undoing(args, &dev), None, "{args}");
        }
    }

    #[test]
    fn statistics_are_asked_for_unless_the_environment_is_ignored() {
        let asked = |args: &str, value: &str| {
            let args = args.split_whitespace().map(OsString::from);
            malloc_stats(args, |name| (name == "PYTHONMALLOCSTATS").then(|| value.into()))
        };
        assert!(asked("-c pass", "1") && asked("x.py -E", "0"));
        assert!(!asked("-c pass", "") && !asked("-E -c pass", "1") && !asked("-I x.py", "1"));
    }

    #[test]
    fn the_name_of_an_allocator_goes_before_the_developers_mode() {
        let both = [("PYTHONMALLOC", "malloc"), ("PYTHONDEVMODE", "1")];
        assert_eq!(undoing("-X dev", &both).unwrap(), "PYTHONMALLOC=malloc");
        assert_eq!(undoing("-E -X dev", &both).unwrap(), "-X dev");
    }

    #[test]
    fn the_developers_mode_is_found_wherever_cpython_finds_it() {
        for args in ["-X dev", "-Xdev", "-X dev=0", "-bX dev", "-X utf8 -Xdev -m x", "-W -E -Xdev"]
        {
            assert_eq!(undoing(args, &[]).as_deref(), Some("-X dev"), "{args}");
        }
        let hash = "--check-hash-based-pycs never -X dev";
        assert_eq!(undoing(hash, &[]).as_deref(), Some("-X dev"));
    }

    #[test]
    fn what_stands_after_the_options_is_the_programs() {
        let malloc = [("PYTHONMALLOC", "malloc")];
        for args in ["-c -E", "-m mod -E", "-mE -E", "x.py -E", "-- -E", "- -E", "-W -E", "-X -E"] {
            assert!(undoing(args, &malloc).is_some(), "{args}");
        }
        for args in ["-c -Xdev", "x.py -X dev", "-X devel", "-X utf8 dev", "-W -Xdev"] {
            assert_eq!(undoing(args, &[]), None, "{args}");
        }
    }
}
