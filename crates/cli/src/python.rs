//! Chooses a Python for the user if the command line does not name one.

#![forbid(unsafe_code)]

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::{
    failure::{Failure, NOT_FOUND, Result},
    program,
};

/// The variable in which `python -m obmalloc` passes the path of the Python that runs it.
pub const VARIABLE: &str = "OBMALLOC_PYTHON";

/// A Python, and the reason why it was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The path of the interpreter.
    pub path: PathBuf,
    /// The reason why this Python was chosen, as text for messages.
    pub because: &'static str,
}

/// The facts on which the choice of a Python depends.
#[derive(Clone, Debug, Default)]
struct Surroundings {
    named: Option<OsString>,
    virtual_env: Option<OsString>,
    /// The folder of this program.
    bin: PathBuf,
    current: PathBuf,
    path: OsString,
}

/// Chooses the Python of the environment in which the user works.
///
/// # Errors
///
/// Fails if no Python was found.
pub fn choose() -> Result<Choice> {
    let program = env::current_exe().unwrap_or_default();
    Surroundings {
        named: env::var_os(VARIABLE),
        virtual_env: env::var_os("VIRTUAL_ENV"),
        bin: program.parent().unwrap_or(Path::new("")).to_owned(),
        current: env::current_dir().unwrap_or_default(),
        path: program::search_path(),
    }
    .choose()
}

impl Surroundings {
    fn choose(&self) -> Result<Choice> {
        let is_set = |value: &Option<OsString>| value.clone().filter(|value| !value.is_empty());
        if let Some(named) = is_set(&self.named) {
            let path = program::find(&named)?;
            return Ok(Choice { path, because: "OBMALLOC_PYTHON names it" });
        }
        let active = is_set(&self.virtual_env).map(|folder| Path::new(&folder).join("bin"));
        let active = active.and_then(|bin| python_in(&bin));
        let beside = || python_in(&self.bin).filter(|_| !is_tool_environment(&self.bin));
        let above = || {
            let mut folders = self.current.ancestors().map(|folder| folder.join(".venv/bin"));
            folders.find_map(|bin| python_in(&bin))
        };
        let on_path = || {
            let mut folders = env::split_paths(&self.path).filter(|folder| {
                let same = |folder: &Path| folder.canonicalize().unwrap_or(folder.to_owned());
                same(folder) != same(&self.bin)
            });
            folders.find_map(|folder| python_in(&folder))
        };
        let choice = |because| move |path| Choice { path, because };
        active
            .map(choice("VIRTUAL_ENV names its environment"))
            .or_else(|| beside().map(choice("obmalloc is installed beside it")))
            .or_else(|| above().map(choice("the current folder has its .venv")))
            .or_else(|| on_path().map(choice("it is the first on the PATH")))
            .ok_or_else(|| {
                Failure::new("cannot find a Python")
                    .because("there is no virtual environment, and no python3 on the PATH")
                    .remedy("name one with --python")
                    .code(NOT_FOUND)
            })
    }
}

fn python_in(bin: &Path) -> Option<PathBuf> {
    let found = ["python3", "python"].map(|name| bin.join(name));
    found.into_iter().find(|path| program::is_executable(path))
}

/// Returns true if `bin` belongs to an environment that pipx or uv created only for this program.
///
/// Such an environment does not have the packages of the user's project.
fn is_tool_environment(bin: &Path) -> bool {
    let Some(prefix) = bin.parent() else { return false };
    let is_of_cache = |name: &str| {
        ["archive-v", "environments-v", "builds-v"].iter().any(|start| name.starts_with(start))
    };
    ["uv-receipt.toml", "pipx_metadata.json"].iter().any(|file| prefix.join(file).exists())
        || prefix.iter().any(|part| part.to_str().is_some_and(is_of_cache))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    /// Surroundings in which every place has a Python.
    struct Places {
        folder: tempfile::TempDir,
        seen: Surroundings,
    }

    impl Places {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            let seen = Surroundings {
                named: Some(at("named/bin/python3").into()),
                virtual_env: Some(at("active").into()),
                bin: at("tool/bin"),
                current: at("project/inner"),
                path: env::join_paths([at("tool/bin"), at("system/bin")]).unwrap(),
            };
            for place in ["named", "active", "tool", "project/.venv", "system"] {
                let bin = at(place).join("bin");
                fs::create_dir_all(&bin).unwrap();
                fs::write(bin.join("python3"), "").unwrap();
                let mode = fs::Permissions::from_mode(0o755);
                fs::set_permissions(bin.join("python3"), mode).unwrap();
            }
            Self { folder, seen }
        }

        fn chosen(&self) -> String {
            let path = self.seen.choose().unwrap().path;
            let path = path.strip_prefix(self.folder.path()).unwrap();
            path.to_str().unwrap().trim_end_matches("/bin/python3").to_owned()
        }
    }

    #[test]
    fn the_nearest_environment_wins() {
        let mut places = Places::new();
        assert_eq!(places.chosen(), "named");
        places.seen.named = None;
        assert_eq!(places.chosen(), "active");
        places.seen.virtual_env = None;
        assert_eq!(places.chosen(), "tool");
        fs::remove_file(places.seen.bin.join("python3")).unwrap();
        assert_eq!(places.chosen(), "project/.venv");
        places.seen.current = "/".into();
        assert_eq!(places.chosen(), "system");
        places.seen.path = OsString::new();
        assert_eq!(places.seen.choose().unwrap_err().exit_code(), NOT_FOUND);
    }

    #[test]
    fn the_environment_of_a_tool_is_not_the_users() {
        let mut places = Places::new();
        (places.seen.named, places.seen.virtual_env) = (None, None);
        places.seen.current = "/".into();
        fs::write(places.folder.path().join("tool/uv-receipt.toml"), "").unwrap();
        assert_eq!(places.chosen(), "system");
        assert!(is_tool_environment("/home/user/.cache/uv/archive-v0/x1/bin".as_ref()));
        assert!(!is_tool_environment("/home/user/archive/bin".as_ref()));
    }

    #[test]
    fn an_environment_without_a_python_is_passed_over() {
        let mut places = Places::new();
        (places.seen.named, places.seen.virtual_env) = (None, Some("/nowhere".into()));
        assert_eq!(places.chosen(), "tool");
    }
}
