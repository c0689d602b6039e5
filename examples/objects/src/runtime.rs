//! The immortal objects of a runtime, which are created once and never freed.

use object_cache::{CachedRc, cpython::Immortals};

use crate::{
    layers::{Layers, VERSION},
    objects::Objects,
    value::Value,
};

const FIRST_INT: i64 = *VERSION.small_ints().start();
const INTS: usize = (*VERSION.small_ints().end() - FIRST_INT + 1) as usize;

/// The immortal objects of one thread: small ints, and strings of one ASCII character. If the
/// caches are switched off, there are no immortal objects.
#[derive(Debug)]
pub struct Runtime<L: Layers> {
    small_ints: Option<Immortals<Value<L>, INTS>>,
    characters: Option<Immortals<Value<L>, 128>>,
}

impl<L: Layers> Default for Runtime<L> {
    fn default() -> Self {
        Self {
            small_ints: L::CACHED.then(|| Immortals::build(FIRST_INT, new_int)),
            characters: L::CACHED.then(|| Immortals::build(0, |code| new_character(code as u8))),
        }
    }
}

fn new_int<L: Layers>(int: i64) -> Value<L> {
    let object = CachedRc::new_in(int, Objects::default());
    Value::Int(object.expect("there is no memory for an int"))
}

fn new_character<L: Layers>(code: u8) -> Value<L> {
    Value::from(char::from(code).encode_utf8(&mut [0; 2]) as &str)
}

impl<L: Layers> Runtime<L> {
    /// Returns an object for `int`. A small int is an immortal object if there are immortal
    /// objects. Otherwise a new object is created.
    ///
    /// # Panics
    ///
    /// Panics if memory is exhausted.
    #[inline]
    pub fn int(&self, int: i64) -> Value<L> {
        match self.small_ints.as_ref().and_then(|small| small.get(int)) {
            Some(small) => small.clone(),
            None => new_int(int),
        }
    }

    /// Returns the string that consists of the ASCII character `code`.
    ///
    /// # Panics
    ///
    /// Panics if memory is exhausted.
    #[inline]
    pub fn character(&self, code: u8) -> Value<L> {
        match self.characters.as_ref().and_then(|known| known.get(code.into())) {
            Some(known) => known.clone(),
            None => new_character(code),
        }
    }
}
