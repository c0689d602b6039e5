#![forbid(unsafe_code)]

use allocator_api::Domain;

/// A difference between this CPython and the versions with which this library was tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Difference {
    #[error("it lacks functions of the {0} domain")]
    Functions(Domain),
    #[error("its vtables have another layout ({words} words in the {domain} domain)")]
    Words { domain: Domain, words: usize },
    #[error("its vtable of the {0} domain lacks a function")]
    NullFunction(Domain),
    #[error("its {operation} of the {domain} domain calls the vtable in another way")]
    Call { domain: Domain, operation: &'static str },
    #[error("setting the allocator of the {0} domain has other effects")]
    Set(Domain),
    #[error("its table of built-in modules has another layout")]
    BuiltinModules,
    #[error("a trial of {operation} in the {domain} domain failed")]
    Operation { domain: Domain, operation: &'static str },
    #[error("the statistics of the {0} domain do not add up")]
    Statistics(Domain),
}
