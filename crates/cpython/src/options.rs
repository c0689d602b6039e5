//! The settings for CPython's allocators in CPython's environment and command line.
//!
//! | setting | effect |
//! | --- | --- |
//! | `PYTHONMALLOC=default`, `pymalloc` | CPython sets its allocators, and our heap then replaces them |
//! | `PYTHONMALLOC=debug`, `pymalloc_debug` | the same with debug hooks |
//! | `PYTHONMALLOC`, another name of CPython | CPython's allocator of that name serves all requests |
//! | `PYTHONMALLOC`, any other value | we list the known names, and CPython decides what it does |
//! | `-X dev`, or `PYTHONDEVMODE`, not empty | without `PYTHONMALLOC`, as `PYTHONMALLOC=debug` |
//! | `PYTHONMALLOCSTATS`, not empty | CPython prints statistics of the allocator in force |
//! | `-E`, `-I` | the three variables are ignored |
//!
//! We parse the command line as the `python` executable does (`Python/preconfig.c`,
//! `Python/getopt.c`). A program that embeds CPython may parse its command line differently. If
//! such a program has an option `-X dev` of its own, for example, we mistake it for CPython's
//! option and expect that CPython will set its debug hooks when it starts. These hooks would
//! replace a heap that we install before `main`. We therefore install the heap later than
//! necessary, when CPython creates its first module.

#![forbid(unsafe_code)]

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

use host::PythonMalloc;

/// A setting that makes CPython set its allocators when it is initialised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Choice {
    #[error("PYTHONMALLOC={}", .0.display())]
    PythonMalloc(OsString),
    #[error("-X dev")]
    XDev,
    #[error("PYTHONDEVMODE")]
    PythonDevMode,
}

impl Choice {
    /// Returns true if the heap replaces the chosen allocator.
    ///
    /// # Errors
    ///
    /// Returns an error that lists the known names if CPython has no allocator of that name.
    pub(crate) fn is_heap(&self) -> Result<bool, String> {
        let Self::PythonMalloc(name) = self else { return Ok(true) };
        let name = PythonMalloc::of(name.as_bytes()).map_err(|unknown| unknown.to_string())?;
        Ok(match name {
            PythonMalloc::Default
            | PythonMalloc::Debug
            | PythonMalloc::Pymalloc
            | PythonMalloc::PymallocDebug => true,
            PythonMalloc::Malloc
            | PythonMalloc::MallocDebug
            | PythonMalloc::Mimalloc
            | PythonMalloc::MimallocDebug => false,
        })
    }
}

/// The one-letter options with an argument, which is the rest of the word or the next word.
const WITH_ARGUMENT: &[u8] = b"cmWX";

const LONG_WITH_ARGUMENT: &[u8] = b"--check-hash-based-pycs";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) choice: Option<Choice>,
    /// True if CPython ignores its environment variables.
    pub(crate) ignores_environment: bool,
    pub(crate) malloc_stats: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CommandLine {
    ignores_environment: bool,
    dev: bool,
}

impl Options {
    pub(crate) fn from_process() -> Self {
        Self::read(std::env::args_os().skip(1), |name| std::env::var_os(name))
    }

    fn read(args: impl Iterator<Item = OsString>, var: impl Fn(&str) -> Option<OsString>) -> Self {
        let line = CommandLine::parse(args);
        // CPython treats an empty value as unset.
        let var = |name| {
            let value = if line.ignores_environment { None } else { var(name) };
            value.filter(|value| !value.is_empty())
        };
        let choice = match var("PYTHONMALLOC") {
            Some(name) => Some(Choice::PythonMalloc(name)),
            None if line.dev => Some(Choice::XDev),
            None => var("PYTHONDEVMODE").map(|_| Choice::PythonDevMode),
        };
        let malloc_stats = var("PYTHONMALLOCSTATS").is_some();
        Self { choice, ignores_environment: line.ignores_environment, malloc_stats }
    }
}

impl CommandLine {
    fn parse(mut args: impl Iterator<Item = OsString>) -> Self {
        let mut line = Self::default();
        while let Some(arg) = args.next() {
            match arg.as_bytes() {
                b"--" | b"-" => break,
                LONG_WITH_ARGUMENT => _ = args.next(),
                [b'-', b'-', ..] => (),
                [b'-', letters @ ..] => {
                    if !line.parse_word(letters, &mut args) {
                        break;
                    }
                }
                _ => break,
            }
        }
        line
    }

    /// Parses one word of options, such as `-bE`. Returns false if this word is the last option.
    fn parse_word(&mut self, letters: &[u8], args: &mut impl Iterator<Item = OsString>) -> bool {
        for (at, letter) in letters.iter().enumerate() {
            match letter {
                b'E' | b'I' => self.ignores_environment = true,
                b'c' | b'm' => return false,
                letter if WITH_ARGUMENT.contains(letter) => {
                    let tail = OsStr::from_bytes(&letters[at + 1..]);
                    let word = if tail.is_empty() { args.next() } else { Some(tail.into()) };
                    self.dev |= *letter == b'X' && word.is_some_and(|word| is_dev(&word));
                    return true;
                }
                _ => (),
            }
        }
        true
    }
}

fn is_dev(word: &OsStr) -> bool {
    word.as_bytes().split(|byte| *byte == b'=').next() == Some(b"dev")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(args: &str, vars: &[(&str, &str)]) -> Option<String> {
        let args = args.split_whitespace().map(OsString::from);
        let var = |name: &str| {
            vars.iter().find(|(other, _)| *other == name).map(|(_, value)| OsString::from(value))
        };
        Options::read(args, var).choice.map(|choice| choice.to_string())
    }

    #[test]
    fn without_options_and_variables_cpython_keeps_the_heap() {
        assert_eq!(choice("", &[]), None);
        assert_eq!(choice("-c pass", &[("PYTHONMALLOC", ""), ("PYTHONDEVMODE", "")]), None);
    }

    #[test]
    fn a_variable_has_an_effect_unless_the_environment_is_ignored() {
        let malloc = [("PYTHONMALLOC", "malloc")];
        let dev = [("PYTHONDEVMODE", "1")];
        assert_eq!(choice("", &malloc).unwrap(), "PYTHONMALLOC=malloc");
        assert_eq!(choice("", &dev).unwrap(), "PYTHONDEVMODE");
        for args in ["-E", "-I", "-sE x.py", "-bI -c pass", "-X utf8 -E", "-Wd -WE -E"] {
            assert_eq!(choice(args, &malloc), None, "{args}");
            assert_eq!(choice(args, &dev), None, "{args}");
        }
    }

    #[test]
    fn the_heap_takes_the_place_of_cpythons_default_allocators() {
        let is_heap = |name: &str| Choice::PythonMalloc(name.into()).is_heap();
        for name in ["default", "debug", "pymalloc", "pymalloc_debug"] {
            assert_eq!(is_heap(name), Ok(true), "{name}");
        }
        for name in ["malloc", "malloc_debug", "mimalloc", "mimalloc_debug"] {
            assert_eq!(is_heap(name), Ok(false), "{name}");
        }
        for name in ["unknown", "Debug"] {
            let error = is_heap(name).unwrap_err();
            let expected =
                format!("PYTHONMALLOC: unknown value \"{name}\" (known: default, debug, ");
            assert!(error.starts_with(&expected), "{error}");
        }
        assert_eq!((Choice::XDev.is_heap(), Choice::PythonDevMode.is_heap()), (Ok(true), Ok(true)));
    }

    #[test]
    fn statistics_are_requested_unless_the_environment_is_ignored() {
        let requested = |args: &str, value: &str| {
            let args = args.split_whitespace().map(OsString::from);
            let var = |name: &str| (name == "PYTHONMALLOCSTATS").then(|| value.into());
            Options::read(args, var).malloc_stats
        };
        assert!(requested("-c pass", "1") && requested("x.py -E", "0"));
        assert!(
            !requested("-c pass", "")
                && !requested("-E -c pass", "1")
                && !requested("-I x.py", "1")
        );
    }

    #[test]
    fn pythonmalloc_takes_precedence_over_development_mode() {
        let both = [("PYTHONMALLOC", "malloc"), ("PYTHONDEVMODE", "1")];
        assert_eq!(choice("-X dev", &both).unwrap(), "PYTHONMALLOC=malloc");
        assert_eq!(choice("-E -X dev", &both).unwrap(), "-X dev");
    }

    #[test]
    fn development_mode_is_found_wherever_cpython_finds_it() {
        for args in ["-X dev", "-Xdev", "-X dev=0", "-bX dev", "-X utf8 -Xdev -m x", "-W -E -Xdev"]
        {
            assert_eq!(choice(args, &[]).as_deref(), Some("-X dev"), "{args}");
        }
        let hash = "--check-hash-based-pycs never -X dev";
        assert_eq!(choice(hash, &[]).as_deref(), Some("-X dev"));
    }

    #[test]
    fn arguments_after_the_options_belong_to_the_program() {
        let malloc = [("PYTHONMALLOC", "malloc")];
        for args in ["-c -E", "-m mod -E", "-mE -E", "x.py -E", "-- -E", "- -E", "-W -E", "-X -E"] {
            assert!(choice(args, &malloc).is_some(), "{args}");
        }
        for args in ["-c -Xdev", "x.py -X dev", "-X devel", "-X utf8 dev", "-W -Xdev"] {
            assert_eq!(choice(args, &[]), None, "{args}");
        }
    }
}
