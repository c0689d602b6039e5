//! Any object: what lists, dicts and tuples hold.

use object_cache::CachedRc;

use crate::{Dict, Instance, Layers, List, Objects, Text, Tuple};

/// A counted pointer at an object of the layers `L`, or one of the values that need none.
#[derive(Debug, Clone, Default)]
pub enum Value<L: Layers> {
    /// No value.
    #[default]
    None,
    /// True or false.
    Bool(bool),
    /// An integer.
    Int(CachedRc<i64, Objects<L>>),
    /// A number with a fraction.
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
                /// What the value is, where the program knows its type.
                ///
                /// # Panics
                ///
                /// Panics when it is of another type.
                #[inline]
                pub fn $name(&self) -> &$T {
                    match self {
                        Self::$Variant(object) => object,
                        other => panic!(concat!(stringify!($Variant), " expected, not {:?}"), other),
                    }
                }
            )*
        }
    };
}

accessors! {
    int: Int => i64,
    float: Float => f64,
    text: Text => Text<L>,
    list: List => List<L>,
    dict: Dict => Dict<L>,
    tuple: Tuple => Tuple<L>,
    instance: Instance => Instance<L>,
}

impl<L: Layers> Value<L> {
    /// A float.
    ///
    /// # Panics
    ///
    /// Panics when there is no memory, as every function here that makes an object.
    #[inline]
    pub fn from_float(float: f64) -> Self {
        Self::Float(CachedRc::new_in(float, Objects::HERE).expect("memory for a float"))
    }

    /// A string of these parts, one after the other.
    ///
    /// # Panics
    ///
    /// Panics when there is no memory.
    pub fn concat(parts: &[&str]) -> Self {
        Self::Text(Text::concat(parts))
    }

    /// A tuple of these values.
    ///
    /// # Panics
    ///
    /// Panics when there is no memory.
    pub fn from_tuple<const N: usize>(values: [Self; N]) -> Self {
        Self::Tuple(Tuple::new(values))
    }

    /// An instance with these slots.
    ///
    /// # Panics
    ///
    /// Panics when there is no memory.
    pub fn from_instance<const N: usize>(slots: [Self; N]) -> Self {
        Self::Instance(Instance::new(slots))
    }

    /// A list of these values.
    ///
    /// # Panics
    ///
    /// Panics when there is no memory.
    pub fn from_list(values: impl IntoIterator<Item = Self>) -> Self {
        let list = CachedRc::make_in(List::default, Objects::HERE).expect("memory for a list");
        list.items_mut().extend(values);
        Self::List(list)
    }

    /// A dict of these entries.
    ///
    /// # Panics
    ///
    /// Panics when there is no memory.
    pub fn from_dict(entries: impl IntoIterator<Item = (Self, Self)>) -> Self {
        let dict = CachedRc::make_in(Dict::default, Objects::HERE).expect("memory for a dict");
        entries.into_iter().for_each(|(key, value)| dict.set(key, value));
        Self::Dict(dict)
    }

    /// The hash of a value that can be a key.
    ///
    /// # Panics
    ///
    /// Panics when it cannot.
    pub fn hash(&self) -> u64 {
        match self {
            Self::Int(int) => **int as u64,
            Self::Text(text) => text.hash(),
            other => panic!("a key expected, not {other:?}"),
        }
    }
}

/// By value, deeply.
impl<L: Layers> PartialEq for Value<L> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => **a == **b,
            (Self::Float(a), Self::Float(b)) => **a == **b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::List(a), Self::List(b)) => CachedRc::ptr_eq(a, b) || **a.items() == **b.items(),
            (Self::Dict(a), Self::Dict(b)) => CachedRc::ptr_eq(a, b) || **a == **b,
            (Self::Tuple(a), Self::Tuple(b)) => a.is(b) || **a == **b,
            (Self::Instance(a), Self::Instance(b)) => a.is(b),
            _ => false,
        }
    }
}

impl<L: Layers> From<bool> for Value<L> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl<L: Layers> From<&str> for Value<L> {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}
