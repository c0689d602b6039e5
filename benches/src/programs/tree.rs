//! A program that builds and drops a tree of boxed nodes on all processors.

use std::hint::black_box;

use rayon::ThreadPoolBuilder;

use crate::{contenders::Global, pin, workload::Taken};

const DEPTH: u32 = 18;

const DIVIDED: u32 = 6;

const TREES: usize = 4;

struct Node {
    value: u64,
    children: Option<[Box<Self>; 2]>,
}

/// Builds trees and drops them. An operation is the life of one node.
pub(super) fn build_and_drop(_: &mut Global) -> Taken {
    // Fails from the second chunk on, because the threads already exist.
    let _ = ThreadPoolBuilder::new().start_handler(pin::to_processor).build_global();
    Taken::together(TREES * ((1 << DEPTH) - 1), || {
        for _ in 0..TREES {
            let tree = build(DEPTH);
            black_box(sum(&tree));
            drop_all(*tree, DIVIDED);
        }
    })
}

fn build(depth: u32) -> Box<Node> {
    let below = depth - 1;
    let children = match below {
        0 => None,
        _ if depth > DEPTH - DIVIDED => {
            let (left, right) = rayon::join(|| build(below), || build(below));
            Some([left, right])
        }
        _ => Some([build(below), build(below)]),
    };
    Box::new(Node { value: u64::from(depth), children })
}

fn sum(node: &Node) -> u64 {
    let children = node.children.iter().flatten();
    node.value + children.map(|child| sum(child)).sum::<u64>()
}

fn drop_all(node: Node, divided: u32) {
    if divided > 0
        && let Some([left, right]) = node.children
    {
        rayon::join(|| drop_all(*left, divided - 1), || drop_all(*right, divided - 1));
    }
}
