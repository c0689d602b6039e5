//! Text split into words, and the words counted.

use crate::{Layers, Runtime, Value};

const SYLLABLES: [&str; 12] =
    ["ka", "lo", "mi", "ren", "sto", "va", "ti", "quo", "ber", "na", "shu", "pel"];

fn text<L: Layers>(runtime: &Runtime<L>, seed: i64, words: usize) -> Value<L> {
    let mut state = runtime.int(seed);
    let out = Value::<L>::from_list([]);
    for _ in 0..words {
        let product = runtime.int(state.int() * 1_103_515_245);
        let sum = runtime.int(product.int() + 12_345);
        state = runtime.int(sum.int() % 2_147_483_648);
        let length = 1 + state.int() / 65_536 % 3;
        let syllables: Vec<&str> = (0..length)
            .map(|place| {
                let quotient = runtime.int(state.int() / 7_i64.pow(place as u32));
                SYLLABLES[*runtime.int(quotient.int() % 12).int() as usize]
            })
            .collect();
        out.list().push(Value::concat(&syllables));
    }
    let items = out.list().items();
    let words: Vec<&str> = items.iter().map(|word| &**word.text()).collect();
    Value::from(&*words.join(" "))
}

fn count<L: Layers>(runtime: &Runtime<L>, lines: &[Value<L>]) -> Value<L> {
    let counts = Value::from_dict([]);
    for line in lines {
        let words = Value::<L>::from_list(line.text().split_whitespace().map(Value::from));
        for word in words.list().items().iter() {
            let stripped = word.text().trim_matches(['.', ',']);
            let upper = Value::<L>::from(&*stripped.to_ascii_uppercase());
            let word = Value::from(&*upper.text().to_ascii_lowercase());
            let had = counts.dict().get(&word).unwrap_or_else(|| runtime.int(0));
            counts.dict().set(word, runtime.int(had.int() + 1));
        }
    }
    counts
}

/// The entries as tuples, the most frequent word first.
fn ranked<L: Layers>(runtime: &Runtime<L>, counts: &Value<L>) -> Value<L> {
    let pairs = Value::from_list([]);
    counts.dict().each(|word, number| {
        let key = Value::from_tuple([runtime.int(-number.int()), word.clone()]);
        let item = Value::from_tuple([word.clone(), number.clone()]);
        pairs.list().push(Value::from_tuple([key, item]));
    });
    pairs.list().items_mut().sort_by(|a, b| {
        let (a, b) = (a.tuple()[0].tuple(), b.tuple()[0].tuple());
        a[0].int().cmp(b[0].int()).then_with(|| a[1].text().cmp(b[1].text()))
    });
    pairs
}

pub(super) fn run<L: Layers>(runtime: &Runtime<L>) -> String {
    let lines = Value::from_list((0..1500).map(|seed| text(runtime, seed, 200)));
    let (mut total, mut words) = (0, 0);
    for start in 0..20 {
        let counts = count(runtime, &lines.list().items()[start * 50..]);
        words = counts.dict().len();
        let ranked = ranked(runtime, &counts);
        let sum: i64 = (0..)
            .zip(ranked.list().items().iter())
            .map(|(place, pair)| place * pair.tuple()[1].tuple()[1].int())
            .sum();
        total = (total * 31 + sum) % 1_000_003;
    }
    format!("words {words} checksum {total}")
}
