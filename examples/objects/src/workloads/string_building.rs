//! Strings built piece by piece.

use crate::{Layers, Runtime, Value};

/// Joins the strings of a list.
fn join<L: Layers>(separator: &str, list: &Value<L>) -> Value<L> {
    let items = list.list().items();
    let texts: Vec<&str> = items.iter().map(|item| &**item.text()).collect();
    Value::from(&*texts.join(separator))
}

fn row<L: Layers>(runtime: &Runtime<L>, number: i64) -> Value<L> {
    let number = runtime.int(number);
    let digits = Value::<L>::from(&*number.int().to_string());
    let padded = Value::<L>::from(&*format!("{:0>6}", &**digits.text()));
    let name = Value::<L>::concat(&["row-", padded.text()]);
    let cells = Value::<L>::from_list((0..10).step_by(3).map(|place| {
        let head = Value::<L>::from(&name.text()[..place]);
        let tail = Value::<L>::from(&name.text()[place..]);
        Value::concat(&[tail.text(), head.text()])
    }));
    let cells = join("|", &cells);
    let cells = Value::<L>::concat(&[cells.text(), " = "]);
    let quotient = Value::<L>::from_float(*number.int() as f64 / 7.0);
    let quotient = Value::<L>::from(&*format!("{:.4}", quotient.float()));
    Value::concat(&[cells.text(), quotient.text()])
}

pub(super) fn run<L: Layers>(runtime: &Runtime<L>) -> String {
    let mut total = 0;
    for round in 0..60 {
        let mut page = Value::<L>::from_list([]);
        for number in 0..12_000 {
            let row = row(runtime, number);
            let mark = Value::<L>::from(&*format!("r{}", page.list().len() % 10));
            page.list().push(Value::from(&*row.text().replace("row", mark.text())));
            if page.list().len() == 60 {
                let text = join("\n", &page);
                let (left, right) = text.text().split_at(text.text().len() / 2);
                let halves = Value::<L>::from_tuple([Value::from(left), Value::from(right)]);
                let zeros = halves.tuple()[1].text().matches('0').count();
                total = (total * 31 + halves.tuple()[0].text().len() + zeros) % 1_000_003;
                let kept = Value::from_list([]);
                for line in page.list().items()[..5].iter() {
                    let encoded = Value::<L>::from(&**line.text());
                    kept.list().push(Value::from(&**encoded.text()));
                }
                page = kept;
            }
        }
        total += round;
    }
    format!("strings {total}")
}
