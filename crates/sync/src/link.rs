//! Intrusive linked lists, in which each node stores the link to the next node.
//!
//! In a normal build, a node is a free block of memory, whose bytes store the link. In a model, a
//! node is a small object that contains loom's types, because loom cannot observe accesses to raw
//! memory. The lists are generic over the type of their nodes, so loom explores the same list code
//! that is released.

use core::{
    marker::PhantomData,
    ptr::{self, NonNull},
};

/// A node that has room for the link to another node.
///
/// # Safety
///
/// [`next`](Self::next) must return the pointer that [`set_next`](Self::set_next) last stored in
/// the node.
pub unsafe trait Link: Sized {
    /// Reads the link of `node`, which points to the next node or is null.
    ///
    /// # Safety
    ///
    /// - The caller must exclusively own `node`.
    /// - The link of `node` must have been set before.
    unsafe fn next(node: NonNull<Self>) -> *mut Self;

    /// Writes the link of `node`.
    ///
    /// # Safety
    ///
    /// The caller must exclusively own `node`.
    unsafe fn set_next(node: NonNull<Self>, next: *mut Self);
}

/// A list of nodes. The link of the last node is null. The chain owns all of its nodes.
///
/// A chain is an iterator over its own nodes. Each call of `next` removes the first node from the
/// chain and returns it. The caller becomes the owner of this node.
#[derive(Debug)]
pub struct Chain<N> {
    /// # Invariant
    ///
    /// `head` is null or points to a node. From there, following the links reaches further nodes
    /// and ends at null. The chain exclusively owns all of these nodes.
    head: *mut N,
    owned: PhantomData<N>,
}

impl<N: Link> Chain<N> {
    /// A chain without nodes.
    pub const EMPTY: Self = Self { head: ptr::null_mut(), owned: PhantomData };

    /// Makes a chain of the node at `head` and the nodes that follow it along the links, up to a
    /// null link. If `head` is null, the chain is empty.
    ///
    /// # Safety
    ///
    /// The caller must exclusively own all of these nodes, and gives up that ownership. The link of
    /// each node must be set.
    #[inline]
    pub unsafe fn from_head(head: *mut N) -> Self {
        // INVARIANT: the caller owned the nodes and has given up their ownership to the chain
        // (contract of `from_head`).
        Self { head, owned: PhantomData }
    }

    /// Puts `node` at the front of the chain.
    ///
    /// # Safety
    ///
    /// The caller must exclusively own `node`, and gives up that ownership.
    #[inline]
    pub unsafe fn push(&mut self, node: NonNull<N>) {
        // SAFETY: the caller owns `node` (contract of `push`).
        unsafe { N::set_next(node, self.head) };
        // INVARIANT: the caller has given up `node` (contract of `push`), and its link to the other
        // nodes was set above.
        self.head = node.as_ptr();
    }
}

impl<N: Link> Iterator for Chain<N> {
    type Item = NonNull<N>;

    #[inline]
    fn next(&mut self) -> Option<NonNull<N>> {
        let node = NonNull::new(self.head)?;
        // SAFETY: the chain owns the node, and the link of the node was set (invariant of `head`).
        self.head = unsafe { N::next(node) };
        Some(node)
    }
}

/// A list that contains at least one node and owns its nodes. A segment also stores a pointer to
/// its last node, so it can be put in front of another list in constant time.
#[derive(Debug)]
pub struct Segment<N> {
    /// # Invariant
    ///
    /// The segment exclusively owns `first` and all nodes that are reached from there along the
    /// links, up to and including `last`. The link of `last` may be unset.
    first: NonNull<N>,
    last: NonNull<N>,
}

impl<N: Link> Segment<N> {
    /// Makes a segment that consists of one node.
    ///
    /// # Safety
    ///
    /// The caller must exclusively own `node`, and gives up that ownership.
    #[inline]
    pub unsafe fn of(node: NonNull<N>) -> Self {
        // INVARIANT: the caller owned the node and has given up its ownership to the segment
        // (contract of `of`).
        Self { first: node, last: node }
    }

    /// Puts `node` at the front of `segment`. If `segment` is `None`, makes a new segment of
    /// `node`.
    ///
    /// # Safety
    ///
    /// The caller must exclusively own `node`, and gives up that ownership.
    #[inline]
    pub unsafe fn push(segment: &mut Option<Self>, node: NonNull<N>) {
        match segment {
            Some(segment) => {
                // SAFETY: the caller owns `node` (contract of `push`).
                unsafe { N::set_next(node, segment.first.as_ptr()) };
                // INVARIANT: the caller has given up `node` (contract of `push`), and its link to
                // the other nodes was set above.
                segment.first = node;
            }
            // SAFETY: the caller owns `node`, and gives it up (contract of `push`).
            None => *segment = Some(unsafe { Self::of(node) }),
        }
    }

    /// Returns a pointer to the first node. The node still belongs to the segment.
    #[inline]
    pub fn first(&self) -> NonNull<N> {
        self.first
    }

    /// Sets the link of the segment's last node to `rest`. The segment does not become the owner of
    /// the nodes from `rest` on.
    #[inline]
    #[expect(clippy::not_unsafe_ptr_arg_deref, reason = "the link is stored, not followed")]
    pub fn link_to(&self, rest: *mut N) {
        // SAFETY: the segment owns its last node (invariant of `first`).
        unsafe { N::set_next(self.last, rest) }
    }

    /// Converts the segment into a chain of the same nodes.
    pub fn into_chain(self) -> Chain<N> {
        self.link_to(ptr::null_mut());
        // SAFETY: the segment owned the nodes, and gives up this ownership, because it is consumed.
        // All links are set, and the link of the last node was set to null above.
        unsafe { Chain::from_head(self.first.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node(*mut Node);

    // SAFETY: both functions access the same field, so `next` reads what `set_next` has written.
    unsafe impl Link for Node {
        unsafe fn next(node: NonNull<Self>) -> *mut Self {
            // SAFETY: the caller owns the node (contract of `next`).
            unsafe { node.as_ref() }.0
        }

        unsafe fn set_next(node: NonNull<Self>, next: *mut Self) {
            // SAFETY: the caller owns the node (contract of `set_next`).
            unsafe { (*node.as_ptr()).0 = next };
        }
    }

    #[test]
    fn a_chain_returns_the_node_that_was_pushed_last_first() {
        let mut nodes = [const { Node(ptr::null_mut()) }; 3];
        let nodes = nodes.each_mut().map(NonNull::from);
        let mut chain = Chain::EMPTY;
        // SAFETY: the test owns the nodes, and does not access them while they are in the list.
        nodes.iter().for_each(|node| unsafe { chain.push(*node) });
        assert!(chain.eq(nodes.iter().rev().copied()));
    }

    #[test]
    fn a_segment_becomes_a_chain_of_its_nodes() {
        let mut nodes = [const { Node(ptr::null_mut()) }; 3];
        let nodes = nodes.each_mut().map(NonNull::from);
        let mut segment = None;
        // SAFETY: the test owns the nodes, and does not access them while they are in the list.
        nodes.iter().for_each(|node| unsafe { Segment::push(&mut segment, *node) });
        let segment = segment.expect("three nodes were pushed");
        assert_eq!(segment.first(), nodes[2]);
        assert!(segment.into_chain().eq(nodes.iter().rev().copied()));
    }
}
