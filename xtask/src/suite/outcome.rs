//! Reads the outcome of each test from the results file and the printed output of a run.
//!
//! The results file does not contain failures of a `subTest` or of `setUpClass`. The printed output
//! does not contain all tests.

use std::collections::BTreeMap;

use anyhow::Result;
use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};

/// The outcome of a test, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Passed,
    /// The test failed as declared.
    ExpectedFailure,
    Skipped,
    Failed,
    /// The file crashed, hung, or wrote no results.
    Lost,
}

pub(super) type Outcomes = BTreeMap<String, Outcome>;

/// Adds the outcome of one run of `test`, and keeps the worst outcome of all runs.
pub(super) fn add(outcomes: &mut Outcomes, test: &str, outcome: Outcome) {
    let known = outcomes.entry(test.to_owned()).or_insert(outcome);
    *known = outcome.max(*known);
}

/// Reads results in JUnit's format, where a `testcase` without a child element passed.
pub(super) fn of_junit(text: &str) -> Result<Outcomes> {
    let mut outcomes = Outcomes::new();
    let mut reader = Reader::from_str(text);
    let mut present = None;
    loop {
        let event = reader.read_event()?;
        let (Event::Start(tag) | Event::Empty(tag)) = event else {
            if matches!(event, Event::Eof) {
                return Ok(outcomes);
            }
            continue;
        };
        let outcome = match tag.name().as_ref() {
            "testcase" => {
                present = name_of(&tag)?;
                Outcome::Passed
            }
            "output" => Outcome::ExpectedFailure,
            "skipped" => Outcome::Skipped,
            // CPython writes `outcome` for an unexpected success.
            "failure" | "error" | "outcome" => Outcome::Failed,
            _ => continue,
        };
        if let Some(test) = &present {
            add(&mut outcomes, test, outcome);
        }
    }
}

/// Returns the name of the test, or `None` if the element describes only a part of a test.
fn name_of(tag: &BytesStart<'_>) -> Result<Option<String>> {
    let Some(name) = tag.try_get_attribute("name")? else { return Ok(None) };
    Ok(Some(name.normalized_value(XmlVersion::Implicit1_0)?.into_owned()))
}

/// Returns the tests with a failure heading in the output, each with the section below it.
pub(super) fn failures(output: &str) -> Vec<(String, &str)> {
    const RULE: &str = "\n======================================================================\n";
    let sections = output.split(RULE).skip(1);
    sections.filter_map(|section| Some((failed_test(section.lines().next()?)?, section))).collect()
}

/// Returns the test that a failure heading names, such as `test.test_int.IntTest.test_sum`.
///
/// Up to CPython 3.10, the parentheses in a heading contain only the class.
fn failed_test(heading: &str) -> Option<String> {
    let rest = heading.strip_prefix("FAIL: ").or_else(|| heading.strip_prefix("ERROR: "))?;
    let (name, rest) = rest.split_once(" (")?;
    let (place, _) = rest.split_once(')')?;
    if [name, place].iter().any(|word| word.contains(char::is_whitespace)) {
        return None;
    }
    let has_name = place.strip_suffix(name).is_some_and(|class| class.ends_with('.'));
    Some(if has_name { place.to_owned() } else { format!("{place}.{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_of_each_test_is_read() {
        let text = r#"<testsuites><testsuite name="x">
            <testcase name="a.one" status="run" time="0.1"/>
            <testcase name="a.two"><failure type="E">&lt;x&gt;</failure></testcase>
            <testcase name="a.three"><skipped>why</skipped></testcase>
            <testcase name="a.two" />
            <testcase />
            <testcase name="a.four"><output>x</output><system-out>y</system-out></testcase>
            <testcase name="a.five"><outcome>UNEXPECTED_SUCCESS</outcome></testcase>
        </testsuite></testsuites>"#;
        let outcomes = of_junit(text).unwrap();
        assert_eq!(outcomes.len(), 5);
        assert_eq!(outcomes["a.one"], Outcome::Passed);
        assert_eq!(outcomes["a.two"], Outcome::Failed);
        assert_eq!(outcomes["a.three"], Outcome::Skipped);
        assert_eq!(outcomes["a.four"], Outcome::ExpectedFailure);
        assert_eq!(outcomes["a.five"], Outcome::Failed);
    }

    #[test]
    fn failures_are_found_in_old_and_new_headings() {
        let rule = "=".repeat(70);
        let output = format!(
            "test_x ... ok\n\n{rule}\nERROR: setUpClass (test.a.T)\n----\nwhy\n\n\
             {rule}\nFAIL: test_sub (test.a.S) (i=0)\n----\n1 != 2\n\n\
             {rule}\nFAIL: test_new (test.a.S.test_new) [message]\n----\n\n\
             {rule}\n== Tests result: FAILURE ==\nFAIL: test_no (heading)\n"
        );
        let failures = failures(&output);
        let names: Vec<_> = failures.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["test.a.T.setUpClass", "test.a.S.test_sub", "test.a.S.test_new"]);
        assert!(failures[1].1.contains("1 != 2"));
    }
}
