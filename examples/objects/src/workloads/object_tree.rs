//! A tree of small objects that is built and dropped several times.

use crate::{Layers, Runtime, Value};

const KEY: usize = 0;
const LEFT: usize = 1;
const RIGHT: usize = 2;

fn build<L: Layers>(runtime: &Runtime<L>, depth: u32, key: i64) -> Value<L> {
    let [left, right] = if depth == 0 {
        [Value::None, Value::None]
    } else {
        [2 * key, 2 * key + 1].map(|key| build(runtime, depth - 1, key))
    };
    Value::from_instance([runtime.int(key), left, right])
}

fn checksum<L: Layers>(runtime: &Runtime<L>, node: &Value<L>) -> Value<L> {
    let Value::Instance(node) = node else {
        return runtime.int(0);
    };
    let left = runtime.int(31 * checksum(runtime, &node.get(LEFT)).int());
    let sum = runtime.int(node.get(KEY).int() + left.int());
    let right = runtime.int(37 * checksum(runtime, &node.get(RIGHT)).int());
    let sum = runtime.int(sum.int() + right.int());
    runtime.int(sum.int() % 1_000_003)
}

pub(super) fn run<L: Layers>(runtime: &Runtime<L>) -> String {
    let kept = build(runtime, 14, 1);
    let mut total = 0;
    for depth in [17, 10, 16, 12, 17, 14, 18, 16] {
        let sum = checksum(runtime, &build(runtime, depth, depth.into()));
        total = (total * 7 + sum.int()) % 1_000_003;
    }
    format!("trees {total} kept {}", checksum(runtime, &kept).int())
}
