//! A simulation driven by a queue of events.

use core::cmp::Ordering;

use crate::{Layers, List, Runtime, Value};

struct Simulation<'r, L: Layers> {
    runtime: &'r Runtime<L>,
    /// Tuples of time, number and action.
    queue: Value<L>,
    number: i64,
    state: Value<L>,
    served: Value<L>,
}

/// What an action remembers: who comes, and how often again.
const NAME: usize = 0;
const VISITS: usize = 1;

impl<L: Layers> Simulation<'_, L> {
    fn draw(&mut self) -> Value<L> {
        let product = self.runtime.int(self.state.int() * 1_103_515_245);
        let sum = self.runtime.int(product.int() + 12_345);
        self.state = self.runtime.int(sum.int() % 2_147_483_648);
        Value::from_float(*self.state.int() as f64 / 2_147_483_648.0)
    }

    /// `draw() * factor + offset`, each result an object.
    fn draw_scaled(&mut self, factor: f64, offset: f64) -> Value<L> {
        let scaled = Value::<L>::from_float(self.draw().float() * factor);
        Value::from_float(offset + scaled.float())
    }

    fn at(&mut self, time: Value<L>, action: Value<L>) {
        self.number += 1;
        let event = Value::from_tuple([time, self.runtime.int(self.number), action]);
        push(self.queue.list(), event);
    }

    fn customer(&self, name: Value<L>, visits: i64) -> Value<L> {
        Value::from_instance([name, self.runtime.int(visits)])
    }

    fn arrive(&mut self, customer: &Value<L>, time: &Value<L>) {
        let till = self.runtime.int((self.draw().float() * 8.0) as i64);
        let name = customer.instance().get(NAME);
        let visits = *customer.instance().get(VISITS).int();
        // As `setdefault` does, whether it is needed or not.
        let fresh = Value::from_list([]);
        let at_till = self.served.dict().get(&till).unwrap_or_else(|| {
            self.served.dict().set(till.clone(), fresh.clone());
            fresh
        });
        let rounded = Value::from_float((time.float() * 1000.0).round() / 1000.0);
        at_till.list().push(Value::from_tuple([name.clone(), rounded]));
        if at_till.list().len() > 400 {
            at_till.list().items_mut().remove_range(0..200);
        }
        if visits > 0 {
            let next = self.draw_scaled(50.0, *time.float());
            let again = self.customer(name, visits - 1);
            self.at(next, again);
        }
    }

    fn run(&mut self) -> (i64, f64) {
        let (mut events, mut time) = (0, Value::None);
        while let Some(event) = pop(self.queue.list()) {
            time = event.tuple()[0].clone();
            self.arrive(&event.tuple()[2], &time);
            events += 1;
        }
        (events, *time.float())
    }
}

/// By time, then by number.
fn before<L: Layers>(a: &Value<L>, b: &Value<L>) -> bool {
    let (a, b) = (a.tuple(), b.tuple());
    match a[0].float().total_cmp(b[0].float()) {
        Ordering::Equal => a[1].int() < b[1].int(),
        order => order == Ordering::Less,
    }
}

/// Puts an event into a binary heap.
fn push<L: Layers>(queue: &List<L>, event: Value<L>) {
    let mut heap = queue.items_mut();
    heap.push(event);
    let mut place = heap.len() - 1;
    while place > 0 {
        let parent = (place - 1) / 2;
        if !before(&heap[place], &heap[parent]) {
            break;
        }
        heap.swap(place, parent);
        place = parent;
    }
}

/// Takes the first event out of a binary heap.
fn pop<L: Layers>(queue: &List<L>) -> Option<Value<L>> {
    let mut heap = queue.items_mut();
    let last = heap.len().checked_sub(1)?;
    heap.swap(0, last);
    let first = heap.pop();
    let mut place = 0;
    loop {
        let children = (2 * place + 1)..(2 * place + 3).min(heap.len());
        let Some(least) = children.reduce(|a, b| if before(&heap[b], &heap[a]) { b } else { a })
        else {
            break;
        };
        if !before(&heap[least], &heap[place]) {
            break;
        }
        heap.swap(place, least);
        place = least;
    }
    first
}

pub(super) fn run<L: Layers>(runtime: &Runtime<L>) -> String {
    let (queue, served) = (Value::from_list([]), Value::from_dict([]));
    let state = runtime.int(12_345);
    let mut simulation = Simulation { runtime, queue, number: 0, state, served };
    for number in 0..4000 {
        let time = Value::from_float(simulation.draw().float() * 100.0);
        let name = Value::from(&*format!("customer {number}"));
        let customer = simulation.customer(name, 160);
        simulation.at(time, customer);
    }
    let (events, time) = simulation.run();
    let mut kept = 0;
    simulation.served.dict().each(|_, served| kept += served.list().len());
    format!("events {events} ended at {time:.3} kept {kept}")
}
