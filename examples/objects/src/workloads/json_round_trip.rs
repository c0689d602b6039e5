//! JSON that is written and read again.

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

/// Appends the JSON text of `value` to the list `pieces`, piece by piece, as CPython's encoder
/// does.
fn encode<L: Layers>(runtime: &Runtime<L>, value: &Value<L>, pieces: &Value<L>) {
    let push = |piece| pieces.list().borrow_mut().push(piece);
    match value {
        Value::None => push("null".into()),
        Value::Bool(flag) => push((if *flag { "true" } else { "false" }).into()),
        Value::Int(int) => push(Value::from(&*int.to_string())),
        Value::Float(float) => push(Value::from(&*format!("{:?}", **float))),
        Value::Text(text) => push(Value::concat(&["\"", text, "\""])),
        Value::List(list) => {
            push(runtime.character(b'['));
            for (index, item) in list.borrow().iter().enumerate() {
                if index > 0 {
                    push(", ".into());
                }
                encode(runtime, item, pieces);
            }
            push(runtime.character(b']'));
        }
        Value::Dict(dict) => {
            let dict = dict.borrow();
            let pair = |(key, value): (&Value<L>, &Value<L>)| [key.clone(), value.clone()];
            let entries = Value::from_list(dict.iter().map(pair).map(Value::from_tuple));
            let mut entries = entries.list().borrow_mut();
            entries.sort_by(|a, b| a.tuple()[0].text().cmp(b.tuple()[0].text()));
            push(runtime.character(b'{'));
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    push(", ".into());
                }
                encode(runtime, &entry.tuple()[0], pieces);
                push(": ".into());
                encode(runtime, &entry.tuple()[1], pieces);
            }
            push(runtime.character(b'}'));
        }
        other => panic!("there is no JSON for {other:?}"),
    }
}

fn dumps<L: Layers>(runtime: &Runtime<L>, value: &Value<L>) -> Value<L> {
    let pieces = Value::from_list([]);
    encode(runtime, value, &pieces);
    let text: String = pieces.list().borrow().iter().map(|piece| &**piece.text()).collect();
    Value::from(&*text)
}

/// A parser for the JSON text that `dumps` wrote.
struct Reader<'r, L: Layers> {
    runtime: &'r Runtime<L>,
    rest: &'r str,
    /// The keys that were read so far. Equal keys share one object.
    keys: Value<L>,
}

impl<L: Layers> Reader<'_, L> {
    /// Skips `text` and returns true if the remaining input begins with it. Otherwise returns
    /// false.
    fn skip(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Splits off and returns the input before the first character for which `end` returns true.
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
        let mut keys = self.keys.dict().borrow_mut();
        keys.entry(key.clone()).or_insert(key).clone()
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
            let item = self.value();
            list.list().borrow_mut().push(item);
        }
        list
    }

    fn dict(&mut self) -> Value<L> {
        let dict = Value::from_dict([]);
        while !self.skip("}") {
            self.skip(", ");
            let key = self.key();
            self.skip(": ");
            let value = self.value();
            dict.dict().borrow_mut().insert(key, value);
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
        assert_eq!(again, records, "the records are read as they were written");
        let records = again.list().borrow();
        let sum: i64 = records.iter().map(|record| *record.dict().borrow()[&id].int()).sum();
        total = (total * 31 + text.text().len() as i64 + sum) % 1_000_003;
    }
    format!("json {total}")
}
