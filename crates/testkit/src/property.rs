//! The inputs of property tests. By default, they are the same in every run.
//!
//! - `OBMALLOC_TEST_DEPTH=20` tries twenty times as many inputs.
//! - `OBMALLOC_TEST_SEED=7` tries other inputs.

use std::{env, fmt::Debug};

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

/// Returns the value of `OBMALLOC_TEST_DEPTH`, or 1 if it is not set.
///
/// # Panics
///
/// Panics if the variable is not a number.
pub fn depth() -> u32 {
    number("OBMALLOC_TEST_DEPTH").unwrap_or(1)
}

fn number(variable: &str) -> Option<u32> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

fn runner(cases: u32) -> TestRunner {
    let mut seed = [0x5a; 16];
    seed[..4].copy_from_slice(&number("OBMALLOC_TEST_SEED").unwrap_or(0).to_le_bytes());
    let config = Config {
        cases: cases * depth(),
        failure_persistence: None,
        max_shrink_time: 10_000,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::XorShift, &seed))
}

/// Calls `holds` with `cases` times [`depth`] inputs.
///
/// # Panics
///
/// Panics if `holds` panics. The message contains the smallest failing input that was found.
pub fn check<T: Debug>(cases: u32, inputs: impl Strategy<Value = T>, holds: impl Fn(T)) {
    let result = runner(cases).run(&inputs, |input| {
        holds(input);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// Returns `cases` times [`depth`] inputs.
///
/// Use this function for tests that keep state from one input to the next. [`check`] could not
/// shrink their failures.
///
/// # Panics
///
/// Panics if `inputs` rejects too many generated values.
pub fn samples<T: Debug>(cases: u32, inputs: impl Strategy<Value = T>) -> impl Iterator<Item = T> {
    let mut runner = runner(cases);
    (0..cases * depth())
        .map(move |_| inputs.new_tree(&mut runner).expect("a strategy without a filter").current())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_are_the_same_in_every_run() {
        let all = || samples(10, 0..1000).collect::<Vec<_>>();
        assert_eq!(all(), all());
        assert!(all().iter().any(|&sample| sample != all()[0]));
    }

    #[test]
    #[should_panic(expected = "minimal failing input: 10")]
    fn the_smallest_failing_input_is_reported() {
        check(100, 0..1000, |number| assert!(number < 10));
    }
}
