//! Checks that no function of a shipping crate contains a `cfg`.

use syn::visit::Visit;

use super::{
    source,
    tree::{SHIPPING, Tree},
};

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut violations = Vec::new();
    for name in SHIPPING {
        for (file, text) in tree.sources(name) {
            let mut finder = Finder { function: None, found: Vec::new() };
            if let Some(parsed) = source::production(text) {
                finder.visit_file(&parsed);
            }
            violations.extend(finder.found.into_iter().map(|function| {
                format!("crates/{name}/src/{file}: a `cfg` inside of the function {function}")
            }));
        }
    }
    violations
}

struct Finder {
    function: Option<String>,
    found: Vec<String>,
}

impl Finder {
    fn inside(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let outer = self.function.replace(signature.ident.to_string());
        self.visit_block(body);
        self.function = outer;
    }
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.inside(&function.sig, &function.block);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.inside(&function.sig, &function.block);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.inside(&function.sig, body);
        }
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if attribute.path().is_ident("cfg") {
            self.found.extend(self.function.clone());
        }
    }

    fn visit_macro(&mut self, invocation: &'ast syn::Macro) {
        let of_assertions = invocation.tokens.to_string() == "debug_assertions";
        if invocation.path.is_ident("cfg") && !of_assertions {
            self.found.extend(self.function.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(text: &str) -> Vec<String> {
        check(&Tree::with(&[("crates/sync/src/lib.rs", text)]))
    }

    #[test]
    fn a_cfg_on_an_item_passes() {
        let text = "#[cfg(unix)] fn f() { if cfg!(debug_assertions) { g() } }
            struct S; impl S { #[cfg(unix)] fn h() {} }
            #[cfg(test)] mod tests { fn t() { #[cfg(unix)] g(); } }";
        assert!(violations(text).is_empty());
    }

    #[test]
    fn a_cfg_on_a_statement_an_arm_or_an_expression_is_a_violation() {
        for body in ["#[cfg(unix)] g();", "match x { #[cfg(unix)] 1 => 2, _ => 3 };", "cfg!(unix);"]
        {
            assert_eq!(violations(&format!("fn f() {{ {body} }}")).len(), 1, "{body}");
        }
        assert_eq!(violations("impl S { fn f() { #[cfg(unix)] let x = 1; } }").len(), 1);
        assert_eq!(violations("trait T { fn f() { #[cfg(unix)] let x = 1; } }").len(), 1);
    }
}
