//! Dicts and lists that grow, shrink and are dropped.

use crate::{Layers, Runtime, Value};

fn churn_lists<L: Layers>(runtime: &Runtime<L>, rounds: i64) -> i64 {
    let mut total = 0;
    let lists = Value::from_list([]);
    let mut lists = lists.list().borrow_mut();
    for number in 0..rounds {
        let number = runtime.int(number);
        let items = Value::from_list([number.clone()]);
        for len in 1..number.int() % 90 {
            let next = runtime.int(number.int() + len);
            items.list().borrow_mut().push(next);
        }
        lists.push(items);
        let count = lists.len();
        if count > 2000 {
            let gone = lists.remove((number.int() * 7919) as usize % count);
            let items = gone.list().borrow();
            total += items.len() as i64 + items[items.len() - 1].int();
        }
    }
    total
}

fn churn_dicts<L: Layers>(runtime: &Runtime<L>, rounds: i64) -> i64 {
    let mut total = 0;
    let live = Value::from_dict([]);
    let name = Value::from("name");
    for number in 0..rounds {
        let number = runtime.int(number);
        let entry = Value::from_dict((0..number.int() % 23).map(|place| {
            let place = runtime.int(place);
            let product = runtime.int(number.int() * place.int());
            (place, product)
        }));
        live.dict().borrow_mut().insert(number.clone(), entry.clone());
        let text = Value::from(&*number.int().to_string());
        entry.dict().borrow_mut().insert(name.clone(), text);
        if *number.int() >= 3000 {
            let oldest = runtime.int(number.int() - 3000);
            let gone = live.dict().borrow_mut().remove(&oldest).expect("it came 3,000 rounds ago");
            let entry = gone.dict().borrow();
            let read: i64 = entry[&name].text().parse().expect("a name is a number");
            total += entry.len() as i64 + read % 11;
        }
    }
    total
}

pub(super) fn run<L: Layers>(runtime: &Runtime<L>) -> String {
    let (lists, dicts) = (churn_lists(runtime, 240_000), churn_dicts(runtime, 600_000));
    format!("lists {lists} dicts {dicts}")
}
