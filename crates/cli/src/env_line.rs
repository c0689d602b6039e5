//! Reads a script's first line that starts `env`, such as `#!/usr/bin/env -S -u HOME python3 -O`.
//!
//! The system passes everything that follows `env` in the first line of a script to `env` as a
//! single argument. If this argument begins with an option such as `-S`, `env` splits the argument
//! into words. To find the program that `env` starts, we interpret the words before it: options
//! that scripts commonly use, such as `-u HOME`, and assignments such as `A=1`. We do not interpret
//! quotes, escapes, variables and comments. If a word with a quote, a backslash, `$` or `#`
//! precedes the program or is the program, we therefore do not know which program `env` starts.

#![forbid(unsafe_code)]

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

/// What a script's first line starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    /// The program with this name or path.
    Program(OsString),
    /// A program that does not get our `LD_PRELOAD`.
    WithoutPreload,
    /// A program that we cannot determine. The system interprets the line.
    Unknown,
}

impl Started {
    /// Returns what `env` starts if it gets `argument`.
    pub(crate) fn by_env(argument: &[u8]) -> Self {
        let Some((mut is_removed, line)) = line_to_split(argument) else {
            return match argument.starts_with(b"-") || argument.contains(&b'=') {
                true => Self::Unknown,
                false => Self::Program(OsStr::from_bytes(argument).into()),
            };
        };
        let mut program = Self::Unknown;
        let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let mut words = words.take_while(|word| !word.iter().any(|byte| b"\"'\\$#".contains(byte)));
        while let Some(word) = words.next() {
            match change(word, || words.next().unwrap_or_default()) {
                Change::None => {}
                Change::RemovesPreload => is_removed = true,
                Change::Unknown => break,
                Change::Ends => {
                    program = Self::Program(OsStr::from_bytes(word).into());
                    break;
                }
            }
        }
        let sets_it_again = line.windows(12).any(|part| part == b"LD_PRELOAD=$");
        match (is_removed, sets_it_again) {
            (true, true) => Self::Unknown,
            (true, false) => Self::WithoutPreload,
            (false, _) => program,
        }
    }
}

/// Parses the option `-S` or `--split-string=` of `env`, which splits a text into words.
///
/// If `argument` is `-S` or `--split-string=` with a text, returns this text, and whether `env`
/// also clears the environment. Returns `None` for any other argument.
///
/// The letters of other options can precede the `S`. In `-iS`, for example, the `i` makes `env`
/// clear the environment. If a letter other than `i` or `v` precedes the `S`, the result is `None`.
fn line_to_split(argument: &[u8]) -> Option<(bool, &[u8])> {
    if let Some(line) = argument.strip_prefix(b"--split-string=") {
        return Some((false, line));
    }
    let letters = argument.strip_prefix(b"-")?;
    let end = letters.iter().position(|letter| *letter == b'S')?;
    is_known(&letters[..end]).then(|| (letters[..end].contains(&b'i'), &letters[end + 1..]))
}

/// Returns true if `letters` are only `-i` and `-v`, which take no value.
fn is_known(letters: &[u8]) -> bool {
    letters.iter().all(|letter| b"iv".contains(letter))
}

/// The effect of one word on the program that `env` starts.
enum Change {
    None,
    RemovesPreload,
    /// We do not know the option, or the program is searched for on another `PATH`.
    Unknown,
    /// The word is the program.
    Ends,
}

fn change<'a>(word: &'a [u8], next: impl FnOnce() -> &'a [u8]) -> Change {
    let variable = match word {
        b"-" | b"--ignore-environment" => return Change::RemovesPreload,
        b"--debug" => return Change::None,
        b"-u" | b"--unset" => next(),
        [b'-', b'u', name @ ..] => name,
        [b'-', b'-', ..] => match word.strip_prefix(b"--unset=") {
            Some(name) => name,
            None => return Change::Unknown,
        },
        [b'-', letters @ ..] if is_known(letters) && letters.contains(&b'i') => {
            return Change::RemovesPreload;
        }
        [b'-', letters @ ..] if is_known(letters) => return Change::None,
        [b'-', ..] => return Change::Unknown,
        _ => match word.iter().position(|byte| *byte == b'=') {
            Some(end) => &word[..end],
            None => return Change::Ends,
        },
    };
    match variable {
        b"LD_PRELOAD" => Change::RemovesPreload,
        b"PATH" => Change::Unknown,
        _ => Change::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_follows_the_options_and_assignments_of_env() {
        for line in [
            "python3",
            "-S python3 -O",
            "-Spython3",
            "-vS python3",
            "--split-string=python3 -i",
            "-S -u HOME python3",
            "-S -uHOME --unset=A --unset B C=1 D= python3 -u x",
            "-S -v A=1 python3",
            "-S python3 -c \"1\"",
        ] {
            let expected = Started::Program("python3".into());
            assert_eq!(Started::by_env(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn a_line_that_clears_the_environment_removes_the_library() {
        for line in [
            "-S -i python3",
            "-iS python3",
            "-S - python3",
            "-S -iv A=1 python3",
            "-S --ignore-environment \"python3\"",
            "-S -u LD_PRELOAD python3",
            "-S --unset=LD_PRELOAD python3",
            "-S LD_PRELOAD= python3",
        ] {
            assert_eq!(Started::by_env(line.as_bytes()), Started::WithoutPreload, "{line}");
        }
    }

    #[test]
    fn a_line_that_is_not_understood_names_no_program() {
        for line in [
            "-S 'python3'",
            "-S ${PYTHON} -O",
            "-S -i LD_PRELOAD=${LD_PRELOAD} python3",
            "-S A=\"b c\" python3",
            "-S -C /tmp python3",
            "-S --chdir=/tmp python3",
            "-S -u \"A\" python3",
            "-S PATH=/x python3",
            "-S",
            "-x",
            "A=1",
        ] {
            assert_eq!(Started::by_env(line.as_bytes()), Started::Unknown, "{line}");
        }
    }
}
