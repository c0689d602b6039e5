//! JSON written and read again.

use core::fmt::Write;

use crate::{Layers, Runtime, Value};

fn record<L: Layers>(runtime: &Runtime<L>, number: i64) -> Value<L> {
    let int = |number| runtime.int(number);
    let tags = (1..8).map(|step| Value::from(&*format!("tag{}", number % step)));
    let deep = Value::from_dict([("deep".into(), Value::None)]);
    let right = Value::from_list([int(number), int(number + 1), deep]);
    let nested = Value::from_dict([("left".into(), int(number % 17)), ("right".into(), right)]);
    Value::from_dict([
        ("id".into(), int(number)),
        ("name".into(), Value::from(&*format!("record {number}"))),
        ("tags".into(), Value::from_list(tags)),
        ("score".into(), Value::from_float(number as f64 * 0.25)),
        ("nested".into(), nested),
        ("flag".into(), Value::from(number % 3 == 0)),
    ])
}

/// Appends the pieces of a value's text to a list, as CPython's encoder does.
fn encode<L: Layers>(runtime: &Runtime<L>, value: &Value<L>, pieces: &Value<L>) {
    let piece = |text: &str| pieces.list().push(Value::from(text));
    let mark = |code| pieces.list().push(runtime.character(code));
    match value {
        Value::None => piece("null"),
        Value::Bool(true) => piece("true"),
        Value::Bool(false) => piece("false"),
        Value::Int(int) => piece(&int.to_string()),
        Value::Float(float) => piece(&format!("{:?}", **float)),
        Value::Text(text) => pieces.list().push(Value::concat(&["\"", text, "\""])),
        Value::List(list) => {
            mark(b'[');
            for (index, item) in list.items().iter().enumerate() {
                if index > 0 {
                    piece(", ");
                }
                encode(runtime, item, pieces);
            }
            mark(b']');
        }
        Value::Dict(dict) => {
            let entries = Value::<L>::from_list([]);
            dict.each(|key, value| {
                entries.list().push(Value::from_tuple([key.clone(), value.clone()]));
            });
            let by_key = |a: &Value<L>, b: &Value<L>| a.tuple()[0].text().cmp(b.tuple()[0].text());
            entries.list().items_mut().sort_by(by_key);
            mark(b'{');
            for (index, entry) in entries.list().items().iter().enumerate() {
                if index > 0 {
                    piece(", ");
                }
                encode(runtime, &entry.tuple()[0], pieces);
                piece(": ");
                encode(runtime, &entry.tuple()[1], pieces);
            }
            mark(b'}');
        }
        other => panic!("no JSON for {other:?}"),
    }
}

fn dumps<L: Layers>(runtime: &Runtime<L>, value: &Value<L>) -> Value<L> {
    let pieces = Value::from_list([]);
    encode(runtime, value, &pieces);
    let mut text = String::new();
    for piece in pieces.list().items().iter() {
        text.write_str(piece.text()).expect("a string takes all");
    }
    Value::from(&*text)
}

/// Reads what `dumps` wrote.
struct Reader<'r, L: Layers> {
    runtime: &'r Runtime<L>,
    rest: &'r str,
    /// The keys read so far, so that equal ones are one object.
    keys: Value<L>,
}

impl<L: Layers> Reader<'_, L> {
    /// Steps over `text`, if it comes next.
    fn skip(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Splits off what comes before `end`.
    fn before(&mut self, end: impl FnMut(char) -> bool) -> &str {
        let at = self.rest.find(end).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(at);
        self.rest = rest;
        text
    }

    fn text(&mut self) -> Value<L> {
        let text = Value::from(self.before(|next| next == '"'));
        self.skip("\"");
        text
    }

    fn key(&mut self) -> Value<L> {
        self.skip("\"");
        let key = self.text();
        if let Some(known) = self.keys.dict().get(&key) {
            return known;
        }
        self.keys.dict().set(key.clone(), key.clone());
        key
    }

    fn value(&mut self) -> Value<L> {
        if self.skip("\"") {
            self.text()
        } else if self.skip("[") {
            self.list()
        } else if self.skip("{") {
            self.dict()
        } else if self.skip("null") {
            Value::None
        } else if self.skip("true") {
            Value::Bool(true)
        } else if self.skip("false") {
            Value::Bool(false)
        } else {
            self.number()
        }
    }

    fn number(&mut self) -> Value<L> {
        let runtime = self.runtime;
        let digits = self.before(|next| !matches!(next, '0'..='9' | '-' | '.'));
        match digits.parse() {
            Ok(int) => runtime.int(int),
            Err(_) => Value::from_float(digits.parse().expect("a number")),
        }
    }

    fn list(&mut self) -> Value<L> {
        let list = Value::from_list([]);
        while !self.skip("]") {
            self.skip(", ");
            list.list().push(self.value());
        }
        list
    }

    fn dict(&mut self) -> Value<L> {
        let dict = Value::from_dict([]);
        while !self.skip("}") {
            self.skip(", ");
            let key = self.key();
            self.skip(": ");
            dict.dict().set(key, self.value());
        }
        dict
    }
}

pub(super) fn run<L: Layers>(runtime: &Runtime<L>) -> String {
    let mut total = 0;
    let id = Value::from("id");
    for batch in 0..60 {
        let numbers = batch * 1000..batch * 1000 + 3000;
        let records = Value::from_list(numbers.map(|number| record(runtime, number)));
        let text = dumps(runtime, &records);
        let mut reader = Reader { runtime, rest: text.text(), keys: Value::from_dict([]) };
        let again = reader.value();
        assert_eq!(again, records, "what was written is read");
        let mut sum = 0;
        for item in again.list().items().iter() {
            sum += item.dict().get(&id).expect("every record has one").int();
        }
        total = (total * 31 + text.text().len() as i64 + sum) % 1_000_003;
    }
    format!("json {total}")
}
