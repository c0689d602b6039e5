//! A small economy of objects that trade with each other.

use crate::{Instance, Layers, Runtime, Value};

/// A generator with its state in an int, as the Python program has it.
struct Random<'r, L: Layers> {
    runtime: &'r Runtime<L>,
    state: Value<L>,
}

impl<L: Layers> Random<'_, L> {
    fn below(&mut self, limit: i64) -> Value<L> {
        let state = *self.state.int() as u64;
        let next =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.state = self.runtime.int(next as i64);
        let high = self.runtime.int((next >> 33) as i64);
        self.runtime.int(high.int() % limit)
    }
}

mod trader {
    pub(super) const MONEY: usize = 1;
    pub(super) const GOODS: usize = 2;
    pub(super) const HISTORY: usize = 3;
}

mod offer {
    pub(super) const TRADER: usize = 0;
    pub(super) const GOOD: usize = 1;
    pub(super) const PRICE: usize = 2;
}

fn make_offer<L: Layers>(trader: &Value<L>, random: &mut Random<'_, L>) -> Value<L> {
    let good = random.below(20);
    let price = Value::<L>::from_float(*random.below(100).int() as f64 / 8.0);
    let price = Value::from_float(1.0 + price.float());
    Value::from_instance([trader.clone(), good, price])
}

fn earn<L: Layers>(trader: &Instance<L>, amount: f64) {
    let money = Value::from_float(trader.get(trader::MONEY).float() + amount);
    trader.set(trader::MONEY, money);
}

fn accept<L: Layers>(
    runtime: &Runtime<L>,
    me: &Value<L>,
    offer: &Value<L>,
    step: &Value<L>,
) -> bool {
    let (me, offer) = (me.instance(), offer.instance());
    let (other, price) = (offer.get(offer::TRADER), offer.get(offer::PRICE));
    if me.get(trader::MONEY).float() < price.float() || other.instance().is(me) {
        return false;
    }
    earn(me, -price.float());
    earn(other.instance(), *price.float());
    let (goods, good) = (me.get(trader::GOODS), offer.get(offer::GOOD));
    let had = goods.dict().get(&good).unwrap_or_else(|| runtime.int(0));
    goods.dict().set(good.clone(), runtime.int(had.int() + 1));
    let history = me.get(trader::HISTORY);
    history.list().push(Value::from_tuple([step.clone(), good, price]));
    if history.list().len() > 50 {
        history.list().items_mut().remove_range(0..25);
    }
    true
}

pub(super) fn run<L: Layers>(runtime: &Runtime<L>) -> String {
    let mut random = Random { runtime, state: runtime.int(42) };
    let traders = Value::<L>::from_list((0..300).map(|number| {
        let name = Value::from(&*format!("trader {number}"));
        let (goods, history) = (Value::from_dict([]), Value::from_list([]));
        Value::from_instance([name, Value::from_float(500.0), goods, history])
    }));
    let draw = |random: &mut Random<'_, L>| traders.list().get(*random.below(300).int() as usize);
    let mut trades = 0;
    for step in 0..6000 {
        let step = runtime.int(step);
        let offers = Value::from_list([]);
        for _ in 0..120 {
            let trader = draw(&mut random);
            offers.list().push(make_offer(&trader, &mut random));
        }
        for offer in offers.list().items().iter() {
            trades += i64::from(accept(runtime, &draw(&mut random), offer, &step));
        }
    }
    let (mut money, mut goods) = (0.0, 0);
    for trader in traders.list().items().iter() {
        money += trader.instance().get(trader::MONEY).float();
        trader.instance().get(trader::GOODS).dict().each(|_, count| goods += count.int());
    }
    format!("trades {trades} goods {goods} money {money:.3}")
}
