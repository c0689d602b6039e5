//! A node that has its own link: a free block in production, a small object in a model.
//!
//! Loom cannot see raw memory. So the lists that cross threads are generic over their nodes, and
//! the code that ships is the code that is modelled.

use std::{marker::PhantomData, ptr::NonNull};

/// A node with room for a link.
///
/// # Safety
///
/// [`next`](Link::next) returns what [`set_next`](Link::set_next) was last called with.
pub(crate) unsafe trait Link: Sized {
    /// The link of `node`.
    ///
    /// # Safety
    ///
    /// The node is the caller's alone, and its link was set.
    unsafe fn next(node: NonNull<Self>) -> *mut Self;

    /// Sets the link of `node`.
    ///
    /// # Safety
    ///
    /// The node is the caller's alone.
    unsafe fn set_next(node: NonNull<Self>, next: *mut Self);
}

/// Nodes that belong to whoever holds the chain, the last one put first.
#[derive(Debug)]
pub(crate) struct Chain<N: Link> {
    /// # Invariant
    ///
    /// The nodes from `first` to `last`, along their links, are the chain's alone. The link of
    /// `last` need not be set.
    first: NonNull<N>,
    last: NonNull<N>,
}

impl<N: Link> Chain<N> {
    /// A chain of one node.
    ///
    /// # Safety
    ///
    /// The node is the caller's alone, who gives it to the chain.
    #[inline]
    pub(crate) unsafe fn of(node: NonNull<N>) -> Self {
        // INVARIANT: the caller's promise.
        Self { first: node, last: node }
    }

    /// Puts a node before the others.
    ///
    /// # Safety
    ///
    /// The node is the caller's alone, who gives it to the chain.
    #[inline]
    pub(crate) unsafe fn push(&mut self, node: NonNull<N>) {
        // SAFETY: the caller's promise.
        unsafe { N::set_next(node, self.first.as_ptr()) };
        // INVARIANT: the node was given, and links to the others.
        self.first = node;
    }

    /// The first node.
    pub(crate) fn first(&self) -> NonNull<N> {
        self.first
    }

    /// Links the last node to `rest`.
    pub(crate) fn set_rest(&self, rest: *mut N) {
        // SAFETY: the invariant: the node is the chain's alone.
        unsafe { N::set_next(self.last, rest) }
    }

    /// Takes the chain apart.
    pub(crate) fn into_nodes(self) -> Nodes<N> {
        self.set_rest(std::ptr::null_mut());
        // INVARIANT: the chain's nodes, now ended by null.
        Nodes { next: self.first.as_ptr(), owned: PhantomData }
    }
}

/// Nodes on their way out of a chain or an inbox: each belongs to whoever it is given to.
#[derive(Debug)]
pub(crate) struct Nodes<N> {
    /// # Invariant
    ///
    /// The nodes along the links from here to null are this iterator's alone.
    next: *mut N,
    owned: PhantomData<N>,
}

impl<N: Link> Nodes<N> {
    /// The nodes along the links from `first` to null.
    ///
    /// # Safety
    ///
    /// They are the caller's alone, who gives them away.
    pub(crate) unsafe fn from_first(first: *mut N) -> Self {
        // INVARIANT: the caller's promise.
        Self { next: first, owned: PhantomData }
    }

    /// Takes out the first node for which `matches` returns true, and leaves the others.
    pub(crate) fn take_out(&mut self, matches: impl Fn(NonNull<N>) -> bool) -> Option<NonNull<N>> {
        let mut before = None;
        let mut node = NonNull::new(self.next)?;
        loop {
            // SAFETY: the invariant: the nodes are ours, and their links are set.
            let next = unsafe { N::next(node) };
            if matches(node) {
                match before {
                    // SAFETY: as above. INVARIANT: the links lead around the node.
                    Some(before) => unsafe { N::set_next(before, next) },
                    // INVARIANT: the node was the first.
                    None => self.next = next,
                }
                return Some(node);
            }
            before = Some(node);
            node = NonNull::new(next)?;
        }
    }
}

impl<N: Link> Iterator for Nodes<N> {
    type Item = NonNull<N>;

    #[inline]
    fn next(&mut self) -> Option<NonNull<N>> {
        let node = NonNull::new(self.next)?;
        // SAFETY: the invariant: the node is ours until we give it away.
        self.next = unsafe { N::next(node) };
        Some(node)
    }
}
