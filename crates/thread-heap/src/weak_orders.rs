//! Defines memory orderings that are too weak, for models that loom must reject.

#![forbid(unsafe_code)]

/// Defines types that implement the trait `Orders` in scope. Each type weakens one operation to
/// `Relaxed`.
macro_rules! weak_orders {
    ($($name:ident: $operation:ident,)*) => { $(
        struct $name;

        impl Orders for $name {
            const $operation: Ordering = Relaxed;
        }
    )* };
}
