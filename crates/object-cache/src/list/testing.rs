//! Free objects for models, in which the model checker loom observes every access.

use core::ptr::NonNull;
use std::sync::Arc;

use sync::UnsafeCell;

use super::Link;

#[derive(Debug)]
pub(crate) struct Node {
    next: UnsafeCell<Option<NonNull<Node>>>,
    count: UnsafeCell<u32>,
    value: UnsafeCell<u32>,
}

// SAFETY: a node has one owner at a time, and only the owner accesses it. The models verify this.
unsafe impl Send for Node {}
// SAFETY: as for `Send`.
unsafe impl Sync for Node {}

impl Default for Node {
    fn default() -> Self {
        Self { next: UnsafeCell::new(None), count: UnsafeCell::new(0), value: UnsafeCell::new(0) }
    }
}

#[derive(Clone)]
pub(crate) struct Nodes(Arc<[Node; 3]>);

impl Nodes {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// A model must call this only once for each node, so that the caller owns the node.
    pub(crate) fn get(&self, index: usize) -> NonNull<Node> {
        NonNull::from(&self.0[index])
    }
}

impl Node {
    /// # Safety
    ///
    /// - The caller must own `this` exclusively.
    pub(crate) unsafe fn touch(this: NonNull<Self>) {
        // SAFETY: the caller owns the node (contract).
        let node = unsafe { this.as_ref() };
        // SAFETY: the caller owns the node (contract), so no other thread accesses the value.
        node.value.with_mut(|value| unsafe { *value += 1 });
    }
}

impl Link for Node {
    unsafe fn set_next(this: NonNull<Self>, next: Option<NonNull<Self>>) {
        // SAFETY: the caller owns the node (contract).
        unsafe { this.as_ref() }.next.with_mut(|link| unsafe { *link = next });
    }

    unsafe fn next(this: NonNull<Self>) -> Option<NonNull<Self>> {
        // SAFETY: the caller owns the node (contract).
        unsafe { this.as_ref() }.next.with(|link| unsafe { *link })
    }

    unsafe fn set_count(this: NonNull<Self>, count: u32) {
        // SAFETY: the caller owns the node (contract).
        unsafe { this.as_ref() }.count.with_mut(|cell| unsafe { *cell = count });
    }

    unsafe fn count(this: NonNull<Self>) -> u32 {
        // SAFETY: the caller owns the node (contract).
        unsafe { this.as_ref() }.count.with(|cell| unsafe { *cell })
    }
}
