//! A program that parses a JSON document of small values and drops it.

use std::{fmt::Write, hint::black_box};

use serde_json::Value;

use crate::{contenders::Global, workload::Taken};

const RECORDS: usize = 2_000;

const TIMES: usize = 5;

/// Parses and drops the document. An operation is the life of one record.
pub(super) fn parse_and_drop(_: &mut Global) -> Taken {
    let text = text();
    Taken::by(TIMES * RECORDS, || {
        for _ in 0..TIMES {
            let parsed: Result<Value, _> = serde_json::from_str(black_box(&text));
            drop(black_box(parsed));
        }
    })
}

fn text() -> String {
    let mut text = String::from("[");
    for number in 0..RECORDS {
        let comma = if number == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{comma}{{\"id\":{number},\"name\":\"record {number}\",\"tags\":[\"a\",\"bc\",\"def\"],\
             \"at\":{{\"x\":{number}.5,\"y\":-1,\"label\":\"somewhere over there\"}},\"ok\":true}}"
        );
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_all_records() {
        let value: Value = serde_json::from_str(&text()).unwrap();
        assert_eq!(value.as_array().map(Vec::len), Some(RECORDS));
        assert_eq!(value[7]["at"]["x"], 7.5);
    }
}
