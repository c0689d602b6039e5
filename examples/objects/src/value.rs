//! Values of any type. Lists, dicts and tuples contain such values.

use std::{
    cell::RefCell,
    hash::{BuildHasherDefault, Hash, Hasher},
};

use allocator_api2_02::vec::Vec;
use hashbrown::HashMap;
use object_cache::CachedRc;

use crate::{Instance, Layers, Memory, Objects, Text, Tuple};

/// A list.
pub type List<L> = RefCell<Vec<Value<L>, Memory<L>>>;

/// A dict, whose keys are ints and strings.
pub type Dict<L> = RefCell<HashMap<Value<L>, Value<L>, BuildHasherDefault<Spread>, Memory<L>>>;

/// A value: either a reference-counted pointer to an object in the memory of the layers `L`, or a
/// value that needs no object.
#[derive(Clone, Debug)]
pub enum Value<L: Layers> {
    /// No value.
    None,
    /// True or false.
    Bool(bool),
    /// An integer.
    Int(CachedRc<i64, Objects<L>>),
    /// A floating-point number.
    Float(CachedRc<f64, Objects<L>>),
    /// A string.
    Text(Text<L>),
    /// A list.
    List(CachedRc<List<L>, Objects<L>>),
    /// A dict.
    Dict(CachedRc<Dict<L>, Objects<L>>),
    /// A tuple.
    Tuple(Tuple<L>),
    /// An instance of a class.
    Instance(Instance<L>),
}

macro_rules! accessors {
    ($($name:ident: $Variant:ident => $T:ty),* $(,)?) => {
        impl<L: Layers> Value<L> {
            $(
                /// Returns the object of a value of this type.
                ///
                /// # Panics
                ///
                /// Panics if the value has another type.
                #[inline]
                pub fn $name(&self) -> &$T {
                    match self {
                        Self::$Variant(object) => object,
                        other => panic!(concat!("expected ", stringify!($Variant), ", got {:?}"), other),
                    }
                }
            )*
        }
    };
}

accessors! {
    int: Int => i64,
    text: Text => Text<L>,
    list: List => List<L>,
    dict: Dict => Dict<L>,
    tuple: Tuple => Tuple<L>,
}

/// Functions that create an object. They panic if memory is exhausted.
impl<L: Layers> Value<L> {
    /// Creates a float.
    #[inline]
    pub fn from_float(float: f64) -> Self {
        let object = CachedRc::new_in(float, Objects::default());
        Self::Float(object.expect("there is no memory for a float"))
    }

    /// Creates a string by concatenating `parts`.
    pub fn concat(parts: &[&str]) -> Self {
        Self::Text(Text::concat(parts))
    }

    /// Creates a tuple of these values.
    pub fn from_tuple<const N: usize>(values: [Self; N]) -> Self {
        Self::Tuple(Tuple::new(values))
    }

    /// Creates an instance whose slots have these values.
    pub fn from_instance<const N: usize>(slots: [Self; N]) -> Self {
        Self::Instance(Instance::new(slots))
    }

    /// Creates a list of these values.
    pub fn from_list(values: impl IntoIterator<Item = Self>) -> Self {
        let mut items = Vec::new_in(Memory::default());
        items.extend(values);
        let object = CachedRc::new_in(RefCell::new(items), Objects::default());
        Self::List(object.expect("there is no memory for a list"))
    }

    /// Creates a dict with these entries.
    pub fn from_dict(entries: impl IntoIterator<Item = (Self, Self)>) -> Self {
        let mut table = HashMap::with_hasher_in(BuildHasherDefault::new(), Memory::default());
        table.extend(entries);
        let object = CachedRc::new_in(RefCell::new(table), Objects::default());
        Self::Dict(object.expect("there is no memory for a dict"))
    }
}

/// Compares values deeply, that is, including the values in lists, dicts and tuples.
impl<L: Layers> PartialEq for Value<L> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => **a == **b,
            (Self::Float(a), Self::Float(b)) => **a == **b,
            (Self::Text(a), Self::Text(b)) => a.is(b) || **a == **b,
            (Self::List(a), Self::List(b)) => CachedRc::ptr_eq(a, b) || **a == **b,
            (Self::Dict(a), Self::Dict(b)) => CachedRc::ptr_eq(a, b) || **a == **b,
            (Self::Tuple(a), Self::Tuple(b)) => a.is(b) || **a == **b,
            (Self::Instance(a), Self::Instance(b)) => a.is(b),
            _ => false,
        }
    }
}

impl<L: Layers> Eq for Value<L> {}

impl<L: Layers> Hash for Value<L> {
    /// Hashes a value that is used as a key.
    ///
    /// # Panics
    ///
    /// Panics if the value cannot be a key.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(match self {
            Self::Int(int) => **int as u64,
            Self::Text(text) => text.hash(),
            other => panic!("expected a key, got {other:?}"),
        });
    }
}

/// A hasher that spreads the bits of one number. It has no random seed, so every run does the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a value hashes one number");
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

impl<L: Layers> From<bool> for Value<L> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl<L: Layers> From<&str> for Value<L> {
    fn from(text: &str) -> Self {
        Self::concat(&[text])
    }
}
