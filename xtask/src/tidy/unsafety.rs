//! Checks that exactly the files in a table of ARCHITECTURE.md use `unsafe`.

use std::collections::BTreeSet;

use syn::visit::Visit;

use super::{
    source,
    tree::{SHIPPING, Tree},
};

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let rows = tree.table("files with `unsafe`");
    let mut violations = Vec::new();
    for name in SHIPPING {
        let row = rows.iter().find(|row| row[0] == *name);
        let listed: BTreeSet<_> = row.map(|row| row[1].split(", ").collect()).unwrap_or_default();
        let mut found = BTreeSet::new();
        for (file, text) in tree.sources(name) {
            let stem = file.trim_end_matches(".rs");
            if is_unsafe(text) {
                found.insert(stem);
            }
        }
        for (file, text) in tree.sources(name) {
            let stem = file.trim_end_matches(".rs");
            let is_above = stem == "lib" || found.iter().any(|below| is_below(below, stem));
            if !found.contains(stem) && !is_above && !forbids(text) {
                violations.push(format!("crates/{name}/src/{file}: does not forbid `unsafe`"));
            }
        }
        for unlisted in found.difference(&listed) {
            violations.push(format!("ARCHITECTURE.md: {name} has `unsafe` in {unlisted}.rs"));
        }
        for clean in listed.difference(&found) {
            violations.push(format!("ARCHITECTURE.md: {name} has no `unsafe` in {clean}.rs"));
        }
    }
    violations
}

/// Returns true if the file `below` is a module inside the module `stem`.
///
/// A file cannot forbid `unsafe` if one of its inner modules uses it.
fn is_below(below: &str, stem: &str) -> bool {
    let folder = stem.strip_suffix("/mod").unwrap_or(stem);
    below.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn forbids(text: &str) -> bool {
    text.contains("#![cfg_attr(not(test), forbid(unsafe_code))]")
        || text.contains("#![forbid(unsafe_code)]")
}

fn is_unsafe(text: &str) -> bool {
    let mut finder = Finder(false);
    if let Some(file) = source::production(text) {
        finder.visit_file(&file);
    }
    finder.0
}

/// Records whether code contains `unsafe` that the lint `unsafe_code` reports.
struct Finder(bool);

impl<'ast> Visit<'ast> for Finder {
    fn visit_expr_unsafe(&mut self, _: &'ast syn::ExprUnsafe) {
        self.0 = true;
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.0 |= item.unsafety.is_some();
        syn::visit::visit_item_impl(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.0 |= item.unsafety.is_some();
        syn::visit::visit_item_trait(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.0 |= signature.unsafety.is_some();
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        self.0 |= attribute.path().is_ident("unsafe");
    }

    fn visit_item_foreign_mod(&mut self, _: &'ast syn::ItemForeignMod) {
        self.0 = true;
    }

    fn visit_macro(&mut self, invocation: &'ast syn::Macro) {
        self.0 |= has_unsafe(invocation.tokens.clone());
    }
}

fn has_unsafe(tokens: proc_macro2::TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        proc_macro2::TokenTree::Ident(ident) => ident == "unsafe",
        proc_macro2::TokenTree::Group(group) => has_unsafe(group.stream()),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "| files with `unsafe` | files |\n| --- | --- |\n| `sync` | `a`, `a/b` |\n";
    const FORBID: &str = "#![forbid(unsafe_code)]\n";

    fn violations(files: &[(&str, &str)]) -> Vec<String> {
        check(&Tree::with(&[&[("ARCHITECTURE.md", TABLE)], files].concat()))
    }

    #[test]
    fn listed_files_with_unsafe_and_others_that_forbid_it_pass() {
        let files = [
            ("crates/sync/src/lib.rs", "mod a; mod c;"),
            ("crates/sync/src/a.rs", "mod b; fn f() { unsafe { g() } }"),
            ("crates/sync/src/a/b.rs", "m! { unsafe impl T for U {} }"),
            ("crates/sync/src/c.rs", FORBID),
        ];
        assert!(violations(&files).is_empty());
    }

    #[test]
    fn unsafe_in_an_unlisted_file_is_a_violation() {
        let files = [
            ("crates/sync/src/a.rs", "unsafe fn f() {}"),
            ("crates/sync/src/a/b.rs", "unsafe impl T for U {}"),
            ("crates/sync/src/d.rs", "unsafe trait T {}"),
        ];
        let found = violations(&files);
        assert!(found.len() == 1 && found[0].contains("d.rs"), "{found:?}");
    }

    #[test]
    fn a_listed_file_without_unsafe_is_a_violation() {
        let files = [
            ("crates/sync/src/a.rs", "unsafe fn f() {}"),
            (
                "crates/sync/src/a/b.rs",
                "#![forbid(unsafe_code)]\n#[cfg(test)] mod t { unsafe fn f() {} }",
            ),
        ];
        let found = violations(&files);
        assert!(found.len() == 1 && found[0].contains("a/b"), "{found:?}");
    }

    #[test]
    fn a_file_that_does_not_forbid_unsafe_is_a_violation() {
        let files = [
            ("crates/sync/src/a.rs", "unsafe fn f() {}"),
            ("crates/sync/src/a/b.rs", "unsafe fn f() {}"),
            ("crates/sync/src/c.rs", "fn f() {}"),
        ];
        let found = violations(&files);
        assert!(found.len() == 1 && found[0].contains("c.rs"), "{found:?}");
    }
}
