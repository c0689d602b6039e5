//! Downloads packages of Debian and unpacks them into a folder, without installing them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;

use crate::process;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A folder `root` with unpacked packages, and a folder `scratch` for the files of apt.
pub(crate) struct Apt {
    pub(crate) root: PathBuf,
    pub(crate) scratch: PathBuf,
    configuration: PathBuf,
    started: Instant,
}

impl Apt {
    /// Prepares to fetch packages of Debian's `release` into `folder`. Either may be from an
    /// earlier run.
    ///
    /// # Errors
    ///
    /// Fails if this machine is not a Debian on x86-64.
    pub(crate) fn new(folder: &Path, release: &str) -> Result<Self> {
        ensure!(cfg!(target_arch = "x86_64"), "only the packages for x86-64 are known to work");
        ensure!(
            Path::new(KEYRING).exists(),
            "this is not a Debian, whose apt fetches the packages"
        );
        let renew = |name| -> Result<PathBuf> {
            let path = folder.join(name);
            if path.exists() {
                fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
            }
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
            Ok(path.canonicalize()?)
        };
        let (root, scratch) = (renew("root")?, renew("scratch")?);
        let configuration = configure(&scratch, &mirror()?, release)?;
        Ok(Self { root, scratch, configuration, started: Instant::now() })
    }

    /// Returns a command that runs apt-get without the packages that are installed on this machine.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut apt = Command::new("apt-get");
        apt.env("APT_CONFIG", &self.configuration).current_dir(&self.scratch).args(arguments);
        apt
    }

    /// Downloads the packages with everything that they depend on.
    pub(crate) fn download(&self, packages: &[&str]) -> Result<()> {
        self.step("the list of Debian's packages", self.command(&["update"]))?;
        let all = ["-y", "--no-install-recommends", "--download-only", "install"];
        self.step("the packages", self.command(&[&all[..], packages].concat()))
    }

    /// Unpacks the downloaded packages whose file names are `wanted`.
    pub(crate) fn unpack(&self, wanted: impl Fn(&str) -> bool) -> Result<()> {
        for folder in [self.scratch.join("cache/archives"), self.scratch.clone()] {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.ends_with(".deb") && wanted(&name) {
                    let mut unpack = Command::new("dpkg");
                    unpack.arg("-x").arg(entry.path()).arg(&self.root);
                    finish(unpack, |_| ())?;
                }
            }
        }
        Ok(())
    }

    /// Runs `command`, and shows what it prints.
    pub(crate) fn step(&self, name: &str, command: Command) -> Result<()> {
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

/// Keeps apt from using the installed packages, and returns the path of apt's configuration.
fn configure(scratch: &Path, mirror: &str, release: &str) -> Result<PathBuf> {
    for folder in ["lists/partial", "cache/archives/partial", "parts"] {
        fs::create_dir_all(scratch.join(folder))?;
    }
    fs::write(scratch.join("status"), "")?;
    let source = format!("deb [signed-by={KEYRING}] {mirror} {release} main\n");
    fs::write(scratch.join("sources.list"), source)?;
    let configuration = scratch.join("apt.conf");
    let scratch = scratch.display();
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

/// Runs `command` to its end. An error contains the last lines that it printed.
pub(crate) fn finish(command: Command, see: impl FnMut(&str)) -> Result<()> {
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
