//! Dicts and lists that grow, shrink and are thrown away.

use crate::{Layers, Runtime, Value};

fn churn_lists<L: Layers>(runtime: &Runtime<L>, rounds: i64) -> i64 {
    let mut total = 0;
    let lists = Value::from_list([]);
    for number in 0..rounds {
        let number = runtime.int(number);
        let items = Value::from_list([number.clone()]);
        while (items.list().len() as i64) < number.int() % 90 {
            let next = runtime.int(number.int() + items.list().len() as i64);
            items.list().push(next);
        }
        lists.list().push(items);
        let count = lists.list().len();
        if count > 2000 {
            let gone = lists.list().items_mut().remove((number.int() * 7919) as usize % count);
            let last = gone.list().get(gone.list().len() - 1);
            total += gone.list().len() as i64 + last.int();
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
        let places = (0..number.int() % 23).map(|place| {
            let place = runtime.int(place);
            let product = runtime.int(number.int() * place.int());
            (place, product)
        });
        let entry = Value::from_dict(places);
        live.dict().set(number.clone(), entry.clone());
        entry.dict().set(name.clone(), Value::from(&*number.int().to_string()));
        if *number.int() >= 3000 {
            let oldest = runtime.int(number.int() - 3000);
            let gone = live.dict().remove(&oldest).expect("it came 3,000 rounds ago");
            let name = gone.dict().get(&name).expect("every entry has a name");
            let read: i64 = name.text().parse().expect("a name is a number");
            total += gone.dict().len() as i64 + read % 11;
        }
    }
    total
}

pub(super) fn run<L: Layers>(runtime: &Runtime<L>) -> String {
    let (lists, dicts) = (churn_lists(runtime, 240_000), churn_dicts(runtime, 600_000));
    format!("lists {lists} dicts {dicts}")
}
