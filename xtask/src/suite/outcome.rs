//! One run of a test file: the outcome of each of its tests.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use quick_xml::{Reader, events::BytesStart, events::Event};
use testkit::pythons::{self, Python};

use super::files::File;

/// A file that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(1200);

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Passed,
    Skipped,
    Failed,
    /// The file as a whole left no results: it crashed or hung.
    Lost,
}

/// The outcome of each test, by name.
pub(crate) type Outcomes = BTreeMap<String, Outcome>;

/// Runs `file` on `python`, on the library if there is one. Also says whether the run was on our
/// heap.
pub(crate) fn run(
    python: &Python,
    file: &File,
    library: Option<&Path>,
) -> Result<(Outcomes, bool)> {
    let folder = tempfile::tempdir()?;
    let results = folder.path().join("results.xml");
    let mut command = pythons::clean_command(&python.executable);
    command.args(["-m", "test", "--junit-xml"]).arg(&results);
    for pattern in file.matching {
        command.args(["-m", pattern]);
    }
    command.arg(file.name).current_dir(folder.path());
    if let Some(library) = library {
        let statistics = folder.path().join("statistics-%p.json");
        command.env("LD_PRELOAD", library).env("OBMALLOC_STATS", statistics);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    wait(child)?;
    Ok((read(&results)?, is_on_our_heap(folder.path())?))
}

fn wait(mut child: Child) -> Result<()> {
    let started = Instant::now();
    while child.try_wait()?.is_none() {
        if started.elapsed() > PATIENCE {
            child.kill()?;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn read(results: &Path) -> Result<Outcomes> {
    match fs::read_to_string(results) {
        Ok(text) => parse(&text),
        Err(_) => Ok(Outcomes::from([("the file".to_owned(), Outcome::Lost)])),
    }
}

/// Reads JUnit's form of results: a `testcase` for each test, with a child where it did not pass.
fn parse(text: &str) -> Result<Outcomes> {
    let mut outcomes = Outcomes::new();
    let mut reader = Reader::from_str(text);
    let mut present = String::new();
    loop {
        match reader.read_event()? {
            Event::Start(tag) | Event::Empty(tag) => match tag.name().as_ref() {
                "testcase" => {
                    present = name_of(&tag)?;
                    outcomes.entry(present.clone()).or_insert(Outcome::Passed);
                }
                "failure" | "error" => worsen(&mut outcomes, &present, Outcome::Failed),
                "skipped" => worsen(&mut outcomes, &present, Outcome::Skipped),
                _ => {}
            },
            Event::Eof => return Ok(outcomes),
            _ => {}
        }
    }
}

fn name_of(tag: &BytesStart<'_>) -> Result<String> {
    let name = tag.try_get_attribute("name")?.context("a test without a name")?;
    Ok(name.normalized_value(quick_xml::XmlVersion::Implicit1_0)?.into_owned())
}

/// A name can stand for several runs of a test: the worst counts.
fn worsen(outcomes: &mut Outcomes, test: &str, outcome: Outcome) {
    if let Some(known) = outcomes.get_mut(test) {
        *known = outcome.max(*known);
    }
}

/// One of the processes said that our heap was in force.
fn is_on_our_heap(folder: &Path) -> Result<bool> {
    let mut reports = fs::read_dir(folder)?.flatten().filter_map(|entry| {
        let path = entry.path();
        let is_report = path.extension().is_some_and(|extension| extension == "json");
        fs::read_to_string(path).ok().filter(|_| is_report)
    });
    Ok(reports.any(|report| report.contains("\"in_force\":true")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_test_by_test() {
        let text = r#"<testsuites><testsuite name="x">
            <testcase name="test.test_a.A.test_one" status="run" time="0.1"/>
            <testcase name="test.test_a.A.test_two"><failure type="E">&lt;x&gt;</failure></testcase>
            <testcase name="test.test_a.A.test_three"><skipped>why</skipped></testcase>
            <testcase name="test.test_a.A.test_two" />
        </testsuite></testsuites>"#;
        let outcomes = parse(text).unwrap();
        let of = |name: &str| outcomes[&format!("test.test_a.A.{name}")];
        assert_eq!(of("test_one"), Outcome::Passed);
        assert_eq!(of("test_two"), Outcome::Failed);
        assert_eq!(of("test_three"), Outcome::Skipped);
    }

    #[test]
    fn a_file_without_results_is_lost() {
        let outcomes = read(Path::new("/no/such/file")).unwrap();
        assert_eq!(outcomes["the file"], Outcome::Lost);
    }
}
