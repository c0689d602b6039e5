//! A script whose values come and go.

use std::hint::black_box;

use rhai::{Engine, INT};

use crate::{contenders::Global, workload::Taken};

/// How often its loop turns.
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

/// An operation is a turn of its loop.
pub(super) fn run(_: &mut Global) -> Taken {
    let engine = Engine::new();
    Taken::by(TURNS as usize, || {
        black_box(total(&engine, TURNS));
    })
}

/// What the script comes to.
///
/// # Panics
///
/// Panics when the script is wrong.
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
    fn the_script_comes_to_what_it_says() {
        // Ten records with eight words and a name of eight letters.
        assert_eq!(total(&Engine::new(), 10), 10 * (8 + 8));
    }
}
