//! A recursive-descent parser for arithmetic, and an evaluator of its trees.

use crate::{Layers, Runtime, Value};

const MODULUS: i64 = 1_000_003;

/// The tokens of a text: tuples of a number's digits or none, and a symbol or none.
fn tokens<L: Layers>(runtime: &Runtime<L>, text: &str) -> Value<L> {
    let tokens = Value::from_list([]);
    let mut rest = text.trim_start();
    while let Some(first) = rest.bytes().next() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let token = if digits > 0 {
            [Value::from(&rest[..digits]), Value::None]
        } else {
            [Value::None, runtime.character(first)]
        };
        tokens.list().push(Value::from_tuple(token));
        rest = rest[digits.max(1)..].trim_start();
    }
    tokens
}

struct Parser<'r, L: Layers> {
    runtime: &'r Runtime<L>,
    tokens: Value<L>,
    place: usize,
}

impl<L: Layers> Parser<'_, L> {
    fn peek(&self) -> Value<L> {
        if self.place < self.tokens.list().len() {
            self.tokens.list().get(self.place)
        } else {
            Value::from_tuple([Value::None, Value::None])
        }
    }

    /// The symbol at this place, if it is one of these.
    fn symbol(&self, symbols: &str) -> Option<Value<L>> {
        match &self.peek().tuple()[1] {
            symbol @ Value::Text(text) if symbols.contains(&**text) => Some(symbol.clone()),
            _ => None,
        }
    }

    fn sum(&mut self) -> Value<L> {
        self.chain("+-", Self::product)
    }

    fn product(&mut self) -> Value<L> {
        self.chain("*", Self::atom)
    }

    fn chain(&mut self, symbols: &str, part: fn(&mut Self) -> Value<L>) -> Value<L> {
        let mut left = part(self);
        while let Some(symbol) = self.symbol(symbols) {
            self.place += 1;
            left = Value::from_instance([symbol, left, part(self)]);
        }
        left
    }

    fn atom(&mut self) -> Value<L> {
        let token = self.peek();
        self.place += 1;
        if let Value::Text(digits) = &token.tuple()[0] {
            let number = self.runtime.int(digits.parse().expect("digits are a number"));
            return Value::from_instance([Value::None, number, Value::None]);
        }
        let inner = self.sum();
        self.place += 1;
        inner
    }
}

fn evaluate<L: Layers>(runtime: &Runtime<L>, node: &Value<L>) -> Value<L> {
    let node = node.instance();
    let Value::Text(symbol) = node.get(0) else {
        return node.get(1);
    };
    let left = evaluate(runtime, &node.get(1));
    let right = evaluate(runtime, &node.get(2));
    let result = runtime.int(match &*symbol {
        "+" => left.int() + right.int(),
        "-" => left.int() - right.int(),
        _ => left.int() * right.int(),
    });
    runtime.int(result.int().rem_euclid(MODULUS))
}

fn expression<L: Layers>(runtime: &Runtime<L>, seed: i64, depth: u32) -> Value<L> {
    if depth == 0 {
        return Value::from(&*runtime.int(seed % 97).int().to_string());
    }
    let symbol = runtime.character(b"+-*"[(seed % 3) as usize]);
    let left = expression(runtime, seed * 5 + 1, depth - 1);
    let right = expression(runtime, seed * 3 + 2, depth - 1);
    Value::concat(&["(", left.text(), " ", symbol.text(), " ", right.text(), ")"])
}

pub(super) fn run<L: Layers>(runtime: &Runtime<L>) -> String {
    let mut total = 0;
    for seed in 0..360 {
        let text = expression(runtime, seed, 10);
        let mut parser = Parser { runtime, tokens: tokens(runtime, text.text()), place: 0 };
        let tree = parser.sum();
        total = (total * 31 + evaluate(runtime, &tree).int()) % MODULUS;
    }
    format!("expressions {total}")
}
