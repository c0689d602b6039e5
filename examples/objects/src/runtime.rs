//! What a program of the runtime has at hand.

use object_cache::{CachedRc, Immortals};

use crate::{Layers, Objects, Value};

/// The immortal objects of one thread: small ints and strings of one character, where caches are
/// on.
#[derive(Debug)]
pub struct Runtime<L: Layers> {
    small_ints: Option<Immortals<Value<L>, 262>>,
    characters: Option<Immortals<Value<L>, 128>>,
}

impl<L: Layers> Default for Runtime<L> {
    fn default() -> Self {
        Self {
            small_ints: L::CACHED.then(|| Immortals::build(-5, new_int)),
            characters: L::CACHED.then(|| Immortals::build(0, |code| new_character(code as u8))),
        }
    }
}

fn new_int<L: Layers>(int: i64) -> Value<L> {
    Value::Int(CachedRc::new_in(int, Objects::HERE).expect("memory for an int"))
}

fn new_character<L: Layers>(code: u8) -> Value<L> {
    Value::from(char::from(code).encode_utf8(&mut [0; 2]) as &str)
}

impl<L: Layers> Runtime<L> {
    /// An int.
    ///
    /// # Panics
    ///
    /// Panics when there is no memory.
    #[inline]
    pub fn int(&self, int: i64) -> Value<L> {
        match self.small_ints.as_ref().and_then(|small| small.get(int)) {
            Some(small) => small.clone(),
            None => new_int(int),
        }
    }

    /// A string of one ASCII character.
    ///
    /// # Panics
    ///
    /// Panics when there is no memory.
    #[inline]
    pub fn character(&self, code: u8) -> Value<L> {
        match self.characters.as_ref().and_then(|known| known.get(code.into())) {
            Some(known) => known.clone(),
            None => new_character(code),
        }
    }
}
