//! Parses Rust files, and removes code that is used only by tests.

use syn::{Attribute, Item, Meta, visit_mut::VisitMut};

/// Parses `text` without test code, or returns `None` if `text` is not valid Rust.
pub(super) fn production(text: &str) -> Option<syn::File> {
    let mut file = syn::parse_file(text).ok()?;
    WithoutTests.visit_file_mut(&mut file);
    Some(file)
}

struct WithoutTests;

impl VisitMut for WithoutTests {
    fn visit_file_mut(&mut self, file: &mut syn::File) {
        file.items.retain(|item| !is_for_tests(item));
        syn::visit_mut::visit_file_mut(self, file);
    }

    fn visit_item_mod_mut(&mut self, module: &mut syn::ItemMod) {
        if let Some((_, items)) = &mut module.content {
            items.retain(|item| !is_for_tests(item));
        }
        syn::visit_mut::visit_item_mod_mut(self, module);
    }
}

fn is_for_tests(item: &Item) -> bool {
    let attributes = match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(needs_test)
}

fn needs_test(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else { return false };
    let condition = list.tokens.to_string().replace(' ', "");
    attribute.path().is_ident("cfg")
        && (["test", "doctest", "loom"].contains(&&*condition)
            || condition.starts_with("all(test,")
            || condition.starts_with("any(test,"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_tests_see_is_removed() {
        let text =
            "fn a() {} #[cfg(test)] mod tests { fn b() {} } #[cfg(all(test, unix))] fn c() {}
            mod d { #[cfg(doctest)] struct E; #[cfg(unix)] fn f() {} }";
        let file = production(text).unwrap();
        assert_eq!(file.items.len(), 2);
        let Item::Mod(module) = &file.items[1] else { panic!("it is the module") };
        assert_eq!(module.content.as_ref().unwrap().1.len(), 1);
    }

    #[test]
    fn text_that_is_not_rust_is_left_to_the_compiler() {
        assert!(production("fn {").is_none());
    }
}
