//! A program that runs a script, which constantly creates and drops values.

use std::hint::black_box;

use rhai::{Engine, INT};

use crate::{contenders::Global, workload::Taken};

const TURNS: INT = 3_000;

const SCRIPT: &str = r#"
    let kept = [];
    let total = 0;
    for number in 0..turns {
        let words = [];
        for word in 0..8 {
            words.push("word " + word + " of " + number);
        }
        let record = #{ number: number, words: words, name: "record " + number };
        total += record.words.len() + record.name.len();
        kept.push(record);
        if kept.len() > 100 { kept.remove(0); }
    }
    total
"#;

/// Runs the script. Each iteration of its loop is one operation.
pub(super) fn run(_: &mut Global) -> Taken {
    let engine = Engine::new();
    Taken::by(TURNS as usize, || {
        black_box(total(&engine, TURNS));
    })
}

/// Runs the script with `turns` iterations and returns its result.
///
/// # Panics
///
/// Panics if the script fails.
fn total(engine: &Engine, turns: INT) -> INT {
    let mut scope = rhai::Scope::new();
    scope.push("turns", turns);
    match engine.eval_with_scope(&mut scope, SCRIPT) {
        Ok(total) => total,
        Err(error) => panic!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_returns_the_expected_total() {
        // The script keeps ten records of eight words and an eight-letter name.
        assert_eq!(total(&Engine::new(), 10), 10 * (8 + 8));
    }
}
