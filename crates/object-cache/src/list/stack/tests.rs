use std::vec::Vec;

use super::*;
use crate::list::FreeObject;

type Stack = BoundedStack<FreeObject>;
type Object = NonNull<FreeObject>;

fn with_stack(bound: u32, body: impl FnOnce(&Stack, [Object; 5])) {
    let mut words = [[0_u64; 2]; 5];
    let start = NonNull::from(&mut words).cast::<[u64; 2]>();
    let stack = BoundedStack::new(bound);
    // SAFETY: five objects begin at `start`.
    body(&stack, [0, 1, 2, 3, 4].map(|index| unsafe { start.add(index) }.cast()));
}

fn put(stack: &Stack, object: Object) -> bool {
    // SAFETY: the objects of these tests hold no values.
    unsafe { stack.put(object) }.is_ok()
}

fn take_all(stack: &Stack) -> Vec<Object> {
    core::iter::from_fn(|| stack.take()).collect()
}

#[test]
fn the_object_put_last_is_taken_first() {
    with_stack(5, |stack, objects| {
        assert!(objects.iter().all(|&object| put(stack, object)));
        assert_eq!(stack.take(), Some(objects[4]));
        assert!(put(stack, objects[4]));
        assert!(take_all(stack).iter().eq(objects.iter().rev()));
    });
}

#[test]
fn a_full_stack_refuses_an_object() {
    with_stack(3, |stack, objects| {
        assert_eq!(objects.map(|object| put(stack, object)), [true, true, true, false, false]);
        assert_eq!(take_all(stack), [objects[2], objects[1], objects[0]]);
        assert_eq!(stack.stats(16).overflows, 2);
    });
}

#[test]
fn a_stack_of_one_object_holds_one() {
    with_stack(1, |stack, objects| {
        assert!(put(stack, objects[0]));
        assert!(!put(stack, objects[1]));
        assert_eq!(take_all(stack), [objects[0]]);
    });
}

#[test]
fn draining_one_object_leaves_the_stack_empty() {
    with_stack(5, |stack, objects| {
        put(stack, objects[0]);
        let (chain, count) = stack.drain();
        assert_eq!((chain.count(), count), (1, 1));
        assert_eq!((stack.stats(16).hits, stack.stats(16).free), (0, 0));
    });
}

#[test]
fn clearing_counts_no_hits() {
    with_stack(5, |stack, objects| {
        objects.iter().for_each(|&object| assert!(put(stack, object)));
        let mut cleared = Vec::new();
        assert_eq!(stack.clear(|object| cleared.push(object)), 5);
        assert!(cleared.iter().eq(objects.iter().rev()));
        assert_eq!((stack.stats(16).free, stack.stats(16).hits), (0, 0));
        objects.iter().for_each(|&object| assert!(put(stack, object)));
        assert_eq!((take_all(stack).len(), stack.stats(16).hits), (5, 5));
    });
}

#[test]
fn clearing_ends_although_objects_are_put_meanwhile() {
    with_stack(5, |stack, objects| {
        objects[..2].iter().for_each(|&object| assert!(put(stack, object)));
        assert_eq!(stack.clear(|object| assert!(put(stack, object))), 2);
        assert_eq!(stack.len(), 2);
    });
}

#[test]
fn the_bound_holds_after_clearing_and_draining() {
    with_stack(3, |stack, objects| {
        let clear = |stack: &Stack| stack.clear(|_| ());
        for remove in [clear, |stack: &Stack| stack.drain().1] {
            assert_eq!(objects.map(|object| put(stack, object)), [true, true, true, false, false]);
            assert_eq!(remove(stack), 3);
        }
    });
}

#[test]
fn loading_a_drained_chain_restores_the_order() {
    with_stack(5, |stack, objects| {
        objects.iter().for_each(|&object| assert!(put(stack, object)));
        let (chain, count) = stack.drain();
        stack.load(chain, count);
        assert_eq!(stack.len(), 5);
        assert!(!put(stack, objects[0]), "the bound holds after loading");
        assert!(take_all(stack).iter().eq(objects.iter().rev()));
        assert_eq!(stack.len(), 0);
    });
}

#[test]
fn every_take_that_finds_an_object_is_a_hit() {
    with_stack(5, |stack, objects| {
        objects.iter().for_each(|&object| assert!(put(stack, object)));
        take_all(stack);
        stack.count_miss();
        assert_eq!((stack.stats(16).hits, stack.stats(16).misses), (5, 1));
    });
}

#[test]
#[should_panic(expected = "at least one object")]
fn a_bound_of_zero_is_rejected() {
    Stack::new(0);
}
