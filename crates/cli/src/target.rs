//! The program that a command line names: a Python program, a module, code, or any command.

#![forbid(unsafe_code)]

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::{
    failure::{Failure, Result, USAGE},
    program, python,
};

/// The part of a command line that names a program.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Target {
    /// The Python to use [default: the virtual environment's Python, or python3 on PATH. `obmalloc
    /// doctor` shows the choice and the reason]
    #[arg(long, value_name = "PYTHON")]
    pub python: Option<OsString>,
    /// Runs a module, as `python -m` does.
    #[arg(short, num_args = 1.., allow_hyphen_values = true, value_names = ["MODULE", "ARGS"])]
    #[arg(conflicts_with_all = ["code", "words"])]
    pub module: Vec<OsString>,
    /// Runs code, as `python -c` does.
    #[arg(short, num_args = 1.., allow_hyphen_values = true, value_names = ["CODE", "ARGS"])]
    #[arg(conflicts_with = "words")]
    pub code: Vec<OsString>,
    /// A program and its arguments. Python runs the program if it is a file whose name ends with
    /// .py, .pyz or .pyw, a folder that contains __main__.py, or `-`, which stands for the code on
    /// stdin. Any other program is started directly, without Python, and so is every program that
    /// follows `--`.
    #[arg(trailing_var_arg = true, value_names = ["PROGRAM", "ARGS"])]
    pub words: Vec<OsString>,
}

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The path of the program.
    pub path: PathBuf,
    /// The name of the program, which becomes its first argument (`argv[0]`).
    pub name: OsString,
    /// The remaining arguments.
    pub args: Vec<OsString>,
}

impl Target {
    /// Returns the program to start. `line` is the whole command line.
    ///
    /// # Errors
    ///
    /// Fails if the command line names no program, or if the program or a Python cannot be found.
    pub fn invocation(&self, line: &[OsString]) -> Result<Invocation> {
        let with_option = |option: &str, words: &[OsString]| {
            let words = [OsString::from(option)].into_iter().chain(words.iter().cloned());
            self.python(words.collect())
        };
        if !self.module.is_empty() {
            return with_option("-m", &self.module);
        }
        if !self.code.is_empty() {
            return with_option("-c", &self.code);
        }
        let Some(program) = self.words.first() else {
            return Err(Failure::new("no program is named").remedy("obmalloc help").code(USAGE));
        };
        if is_python(program.as_ref()) && !self.is_escaped(line) {
            return self.python(self.words.clone());
        }
        if let Some(python) = &self.python {
            let (python, program) = (python.display(), program.display());
            return Err(Failure::new(format!("cannot run {program} with --python {python}"))
                .because(format!("{program} is a command, which is started without Python"))
                .remedy(format!("obmalloc run -- {python} {program}, or no --python"))
                .code(USAGE));
        }
        let path = program::find(program)?;
        Ok(Invocation { path, name: program.clone(), args: self.words[1..].to_vec() })
    }

    /// Returns true if a `--` precedes the program. Clap does not provide this information.
    fn is_escaped(&self, line: &[OsString]) -> bool {
        let before = line.len().checked_sub(self.words.len() + 1);
        before.is_some_and(|before| line[before] == "--")
    }

    fn python(&self, args: Vec<OsString>) -> Result<Invocation> {
        let path = match &self.python {
            Some(python) => program::find(python)?,
            None => python::choose()?.path,
        };
        Ok(Invocation { name: path.clone().into(), path, args })
    }
}

/// Returns `line` with the value of the option `-m` or `-c` as a word of its own, as in `-m MODULE`.
///
/// In `-m MODULE --stats`, Clap takes all words after `-m` as values of `-m`, so the module gets
/// the argument `--stats`. In `-mMODULE --stats`, Clap would take only `MODULE` as a value, and
/// would parse `--stats` as an option of `obmalloc`. To avoid this, this function splits `-mMODULE`
/// into `-m` and `MODULE`. It splits `-c` and its code in the same way. To find `-m` or `-c`, the
/// function skips the options that come before it. `command` describes the options to skip.
pub fn with_separate_values(mut line: Vec<OsString>, command: &clap::Command) -> Vec<OsString> {
    let action = line.get(1).and_then(|name| command.find_subcommand(name));
    let Some(action) = action.filter(|action| has_argument(action, "module")) else { return line };
    let mut at = 2;
    while let Some(word) = line.get(at).map(|word| word.as_bytes()) {
        match word {
            [b'-', b'm' | b'c', _, ..] => {
                let value = OsStr::from_bytes(&word[2..]).to_owned();
                line[at] = OsStr::from_bytes(&word[..2]).to_owned();
                line.insert(at + 1, value);
                break;
            }
            b"--" | b"-" | b"-m" | b"-c" => break,
            [b'-', ..] => at += if takes_next_word(action, word) { 2 } else { 1 },
            _ => break,
        }
    }
    line
}

fn has_argument(action: &clap::Command, id: &str) -> bool {
    action.get_arguments().any(|argument| argument.get_id() == id)
}

/// Returns true if the value of the option `word` is the next word.
fn takes_next_word(action: &clap::Command, word: &[u8]) -> bool {
    let Some(name) = word.strip_prefix(b"--") else { return false };
    action.get_arguments().any(|argument| {
        argument.get_long().is_some_and(|long| long.as_bytes() == name)
            && argument.get_action().takes_values()
            && !argument.is_require_equals_set()
    })
}

/// Returns true if Python can run the file or folder at `path`. The path `-` stands for stdin.
fn is_python(path: &Path) -> bool {
    if path.as_os_str() == "-" {
        return true;
    }
    let extension = path.extension().and_then(|extension| extension.to_str());
    let has_extension = matches!(extension, Some("py" | "pyz" | "pyw"));
    has_extension || path.join("__main__.py").is_file()
}

impl Invocation {
    /// Returns the program's name without its folder, as text for messages.
    pub fn short_name(&self) -> String {
        let path = Path::new(&self.name);
        path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[arg(long)]
        stats: bool,
        #[command(flatten)]
        target: Target,
    }

    fn line(words: &[&str]) -> Line {
        Line::try_parse_from([&["run"], words].concat()).unwrap()
    }

    fn invocation(words: &[&str]) -> (String, Vec<String>) {
        let raw: Vec<_> = words.iter().map(OsString::from).collect();
        let Invocation { path, args, .. } = line(words).target.invocation(&raw).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, args.iter().map(|word| word.to_str().unwrap().to_owned()).collect())
    }

    fn expect(words: &[&str], name: &str, args: &[&str]) {
        let (found, passed) = invocation(words);
        assert_eq!((&*found, passed), (name, args.iter().map(|word| (*word).to_owned()).collect()));
    }

    #[test]
    fn a_python_program_gets_every_word_behind_its_name() {
        let with = ["--python", "/bin/sh"];
        for (words, args) in [
            (&["a.py", "--help", "-v"][..], &["a.py", "--help", "-v"][..]),
            (&["a.py", "--stats"], &["a.py", "--stats"]),
            (&["a.py", "x", "--", "y"], &["a.py", "x", "--", "y"]),
            (&["-m", "http.server", "--bind", "x"], &["-m", "http.server", "--bind", "x"]),
            (&["-m", "m", "--", "-c"], &["-m", "m", "--", "-c"]),
            (&["-c", "print(1)", "-v"], &["-c", "print(1)", "-v"]),
            (&["-", "--help", "-v"], &["-", "--help", "-v"]),
        ] {
            expect(&[&with, words].concat(), "sh", args);
        }
    }

    #[test]
    fn the_module_and_the_code_may_follow_their_option_without_a_space() {
        let command = crate::command_line::command();
        for (line, expected) in [
            ("run -mjson.tool p --help", "run -m json.tool p --help"),
            ("run -v --stats --limit 1M -cpass -mx", "run -v --stats --limit 1M -c pass -mx"),
            ("run --limit=1M --python -mx -m=y", "run --limit=1M --python -mx -m =y"),
            ("compare --rounds 3 -mx --help", "compare --rounds 3 -m x --help"),
            ("run -m -mx", "run -m -mx"),
            ("run -- -mx", "run -- -mx"),
            ("run - -mx", "run - -mx"),
            ("run p.py -mx", "run p.py -mx"),
            ("doctor -mx", "doctor -mx"),
            ("run -m", "run -m"),
        ] {
            let words = |line: &str| -> Vec<OsString> {
                ["obmalloc"].into_iter().chain(line.split(' ')).map(OsString::from).collect()
            };
            assert_eq!(with_separate_values(words(line), &command), words(expected));
        }
    }

    #[test]
    fn a_command_cannot_be_combined_with_a_choice_of_python() {
        let error = line(&["--python", "/bin/sh", "ls"]).target.invocation(&[]).unwrap_err();
        assert_eq!(error.exit_code(), USAGE);
        assert!(error.to_string().contains("started without Python"), "{error}");
    }

    #[test]
    fn other_words_are_commands() {
        expect(&["--", "sh", "-c", "exit"], "sh", &["-c", "exit"]);
        expect(&["--", "sh", "a.py", "--", "b"], "sh", &["a.py", "--", "b"]);
        expect(&["sh", "-c", "exit"], "sh", &["-c", "exit"]);
        let script = tempfile::Builder::new().suffix(".py").tempfile().unwrap();
        let error = line(&["--", script.path().to_str().unwrap()]).target;
        let error = error.invocation(&["--".into(), script.path().into()]).unwrap_err();
        assert!(error.to_string().contains("not an executable file"), "{error}");
        assert!(line(&["--stats", "sh"]).stats);
        assert!(!line(&["sh", "--stats"]).stats);
    }

    #[test]
    fn a_folder_with_a_main_module_is_a_python_program() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_python(folder.path()));
        std::fs::write(folder.path().join("__main__.py"), "").unwrap();
        assert!(is_python(folder.path()));
    }

    #[test]
    fn an_unknown_option_is_not_given_to_the_program() {
        let error = Line::try_parse_from(["run", "--stast", "prog.py"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("'--stats'"), "{error}");
    }
}
