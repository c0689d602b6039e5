//! Lists: an object of fixed size, and a buffer that grows.

use core::cell::{Ref, RefCell, RefMut};

use crate::{Buffer, Layers, Value};

/// A list of values. Only the list itself is cached, not its buffer, as in CPython.
#[derive(Debug)]
pub struct List<L: Layers> {
    items: RefCell<Buffer<Value<L>, L>>,
}

impl<L: Layers> Default for List<L> {
    fn default() -> Self {
        Self { items: RefCell::default() }
    }
}

impl<L: Layers> List<L> {
    /// The items.
    pub fn items(&self) -> Ref<'_, Buffer<Value<L>, L>> {
        self.items.borrow()
    }

    /// The items, for writing.
    pub fn items_mut(&self) -> RefMut<'_, Buffer<Value<L>, L>> {
        self.items.borrow_mut()
    }

    /// Appends `value`.
    ///
    /// # Panics
    ///
    /// Panics when there is no memory.
    #[inline]
    pub fn push(&self, value: Value<L>) {
        self.items_mut().push(value);
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at `index`, as another pointer to it.
    ///
    /// # Panics
    ///
    /// Panics when there is none.
    #[inline]
    pub fn get(&self, index: usize) -> Value<L> {
        self.items()[index].clone()
    }
}
