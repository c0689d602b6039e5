use sync::{Arc, thread};

use super::*;
use crate::list::{
    Chain,
    testing::{Node, Nodes},
};

type TestDepot = Depot<Node, 1>;

fn magazine(nodes: impl IntoIterator<Item = NonNull<Node>>) -> Magazine<Node> {
    let (mut chain, mut count) = (Chain::EMPTY, 0);
    for node in nodes {
        // SAFETY: a model gets each node only once, so it owns the node.
        unsafe {
            Node::touch(node);
            chain.push(node);
        }
        count += 1;
    }
    Magazine::seal(chain, count).expect("a magazine has at least one node")
}

/// Writes to each node of a magazine, and returns their number.
fn empty(magazine: Option<Magazine<Node>>) -> u32 {
    let Some(magazine) = magazine else { return 0 };
    let (chain, count) = magazine.open();
    // SAFETY: the caller of `open` owns the nodes.
    let used = chain.map(|node| unsafe { Node::touch(node) }).count();
    assert_eq!(used, count as usize, "the magazine is whole");
    count
}

fn spawn(
    depot: &Arc<TestDepot>,
    act: impl FnOnce(&TestDepot) -> u32 + Send + 'static,
) -> thread::JoinHandle<u32> {
    let depot = Arc::clone(depot);
    thread::spawn(move || act(&depot))
}

fn a_put_meets_a_take(publish: Ordering, receive: Ordering) {
    let (depot, nodes) = (Arc::new(TestDepot::new()), Nodes::new());
    let taker = spawn(&depot, move |depot| empty(depot.take_with(receive)));
    let full = magazine([nodes.get(0), nodes.get(1)]);
    assert!(depot.put_with(full, publish).is_ok());
    let taken = taker.join().unwrap();
    assert_eq!(taken + empty(depot.take()), 2);
}

#[test]
fn a_magazine_arrives_whole() {
    sync::model(|| a_put_meets_a_take(Release, Acquire));
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_put_without_release_is_rejected() {
    sync::rejected(|| a_put_meets_a_take(Relaxed, Acquire));
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_take_without_acquire_is_rejected() {
    sync::rejected(|| a_put_meets_a_take(Release, Relaxed));
}

fn two_takes_meet(take: fn(&TestDepot) -> Option<Magazine<Node>>) {
    let (depot, nodes) = (Arc::new(TestDepot::new()), Nodes::new());
    assert!(depot.put(magazine([nodes.get(0)])).is_ok());
    let other = spawn(&depot, move |depot| empty(take(depot)));
    let taken = empty(take(&depot));
    assert_eq!(taken + other.join().unwrap(), 1);
}

#[test]
fn a_magazine_is_taken_once() {
    sync::model(|| two_takes_meet(Depot::take));
}

/// Wrong on purpose: another thread can take the same magazine between the load and the store.
fn take_in_two_steps(depot: &TestDepot) -> Option<Magazine<Node>> {
    let first = NonNull::new(depot.slots[0].load(Acquire))?;
    depot.slots[0].store(ptr::null_mut(), Relaxed);
    // SAFETY: wrong on purpose, because another thread may have read the same pointer.
    Some(unsafe { Magazine::from_first(first) })
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_take_in_two_steps_is_rejected() {
    sync::rejected(|| two_takes_meet(take_in_two_steps));
}

/// Wrong on purpose: reads the count of a magazine that this thread does not own yet.
fn take_after_a_look_inside(depot: &TestDepot) -> Option<Magazine<Node>> {
    let first = NonNull::new(depot.slots[0].load(Acquire))?;
    // SAFETY: wrong on purpose, because another thread may own the object by now.
    let count = unsafe { Node::count(first) };
    if count == 0 { None } else { depot.take() }
}

/// Puts a magazine back while another thread takes it. Putting it back writes the count in its
/// first object.
fn a_take_meets_a_magazine_that_comes_back(take: fn(&TestDepot) -> Option<Magazine<Node>>) {
    let (depot, nodes) = (Arc::new(TestDepot::new()), Nodes::new());
    assert!(depot.put(magazine([nodes.get(0)])).is_ok());
    let other = spawn(&depot, move |depot| empty(take(depot)));
    if let Some(full) = depot.take() {
        assert!(depot.put(magazine(full.open().0)).is_ok());
    }
    let taken = other.join().unwrap();
    assert_eq!(taken + empty(depot.take()), 1);
}

#[test]
fn a_magazine_may_come_back_while_it_is_taken() {
    sync::model(|| a_take_meets_a_magazine_that_comes_back(Depot::take));
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_look_inside_a_magazine_of_the_depot_is_rejected() {
    sync::rejected(|| a_take_meets_a_magazine_that_comes_back(take_after_a_look_inside));
}

fn two_puts_meet(put: fn(&TestDepot, Magazine<Node>) -> Result<(), Magazine<Node>>) {
    let (depot, nodes) = (Arc::new(TestDepot::new()), Nodes::new());
    let own = nodes.clone();
    let other = spawn(&depot, move |depot| empty(put(depot, magazine([own.get(1)])).err()));
    let refused = empty(put(&depot, magazine([nodes.get(0)])).err());
    let refused = refused + other.join().unwrap();
    assert_eq!((refused, empty(depot.take())), (1, 1));
}

#[test]
fn a_slot_holds_one_magazine() {
    sync::model(|| two_puts_meet(Depot::put));
}

/// Wrong on purpose: another thread can fill the slot between the check and the store.
fn put_in_two_steps(depot: &TestDepot, full: Magazine<Node>) -> Result<(), Magazine<Node>> {
    if !depot.slots[0].load(Relaxed).is_null() {
        return Err(full);
    }
    depot.slots[0].store(full.into_first().as_ptr(), Release);
    Ok(())
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_put_in_two_steps_is_rejected() {
    sync::rejected(|| two_puts_meet(put_in_two_steps));
}

#[test]
fn a_slot_serves_again_after_it_was_emptied() {
    sync::model(|| {
        let (depot, nodes) = (Arc::new(TestDepot::new()), Nodes::new());
        let other = spawn(&depot, |depot| empty(depot.take()) + empty(depot.take()));
        let mut refused = 0;
        for index in 0..2 {
            refused += empty(depot.put(magazine([nodes.get(index)])).err());
        }
        assert_eq!(refused + other.join().unwrap() + empty(depot.take()), 2);
    });
}
