//! Finds our own mutants, which cargo-mutants does not list, and the code that is not measured.

use std::{env::consts, fs, ops::Range, path::Path, sync::Arc};

use anyhow::{Context, Result};
use proc_macro2::{Group, TokenStream, TokenTree};
use syn::{
    Attribute, Block, Expr, File, Ident, ImplItem, Item, Lit, Meta, Pat, Stmt, Token, Type,
    punctuated::Punctuated,
    spanned::Spanned,
    visit::{self, Visit},
};

use super::{
    crates::Crate,
    mutant::{Kind, Mutant, Source},
};
use crate::workspace;

pub(super) struct Scan {
    krate: &'static str,
    pub(super) source: Arc<Source>,
    changes: Vec<(Kind, Range<usize>, String)>,
    /// Code that is not measured: tests, `Debug` and `Display`, and code for other systems.
    excluded: Vec<Range<usize>>,
    /// The range and the name of every function, outer functions first.
    functions: Vec<(Range<usize>, String)>,
    /// The names of the modules that are in files of their own.
    modules: Vec<String>,
    /// The `impl` or trait that contains the visited code.
    owner: Option<String>,
    /// The only statement of the visited function, whose deletion cargo-mutants already lists.
    only: Option<Range<usize>>,
}

pub(super) fn scan(krate: &'static Crate) -> Result<Vec<Scan>> {
    let mut scans = Vec::new();
    let mut files = vec![format!("crates/{}/src/lib.rs", krate.folder)];
    while let Some(path) = files.pop() {
        let text = fs::read_to_string(workspace::root().join(&path))
            .with_context(|| format!("cannot read {path}"))?;
        let scan = Scan::new(krate.folder, path, text)?;
        let modules = scan.modules.iter().map(|module| scan.file_of(module));
        // No test checks the heap's own invariant checks, so most of their mutants would survive.
        files.extend(modules.filter(|file| !file.ends_with("/check.rs")));
        scans.push(scan);
    }
    Ok(scans)
}

impl Scan {
    fn new(krate: &'static str, path: String, text: String) -> Result<Self> {
        let parsed = syn::parse_file(&text).with_context(|| format!("cannot parse {path}"))?;
        let mut scan = Self {
            krate,
            source: Arc::new(Source { path, text }),
            changes: Vec::new(),
            excluded: Vec::new(),
            functions: Vec::new(),
            modules: Vec::new(),
            owner: None,
            only: None,
        };
        scan.visit_file(&parsed);
        Ok(scan)
    }

    pub(super) fn mutants(&self) -> impl Iterator<Item = Mutant> {
        let changes = self.changes.iter();
        changes.filter_map(|(kind, range, text)| self.mutant(*kind, range.clone(), text.clone()))
    }

    /// Returns the mutant that replaces `range`, or `None` if that code is not measured.
    pub(super) fn mutant(
        &self,
        kind: Kind,
        range: Range<usize>,
        replacement: String,
    ) -> Option<Mutant> {
        let inside = |outer: &Range<usize>| outer.start <= range.start && range.end <= outer.end;
        if self.excluded.iter().any(inside) {
            return None;
        }
        let around = self.functions.iter().rfind(|(outer, _)| inside(outer));
        let function = around.map_or_else(String::new, |(_, name)| name.clone());
        let source = Arc::clone(&self.source);
        Some(Mutant { krate: self.krate, source, function, kind, range, replacement })
    }

    fn file_of(&self, module: &str) -> String {
        let path = Path::new(&self.source.path);
        let is_root = path.ends_with("lib.rs") || path.ends_with("mod.rs");
        let folder = if is_root { path.with_file_name("") } else { path.with_extension("") };
        let folder = folder.to_string_lossy();
        let folder = folder.trim_end_matches('/');
        let nested = format!("{folder}/{module}/mod.rs");
        if workspace::root().join(&nested).exists() {
            return nested;
        }
        format!("{folder}/{module}.rs")
    }

    fn add(&mut self, kind: Kind, range: Range<usize>, replacement: impl Into<String>) {
        self.changes.push((kind, range, replacement.into()));
    }

    /// Excludes `node` and returns true if it is a test or not compiled on this system.
    fn excludes(&mut self, attributes: &[Attribute], node: &impl Spanned) -> bool {
        let excluded = attributes.iter().any(|attribute| {
            attribute.path().is_ident("test")
                || attribute.path().is_ident("cfg")
                    && attribute.parse_args().ok().and_then(|meta| holds(&meta)) == Some(false)
        });
        if excluded {
            self.excluded.push(range(node));
        }
        excluded
    }

    fn function(
        &mut self,
        node: &impl Spanned,
        name: &Ident,
        body: &Block,
        visit: impl FnOnce(&mut Self),
    ) {
        let name = match &self.owner {
            Some(owner) => format!("{owner}::{name}"),
            None => name.to_string(),
        };
        self.functions.push((range(node), name));
        let only = match &body.stmts[..] {
            [only] => Some(range(only)),
            _ => None,
        };
        let outer = std::mem::replace(&mut self.only, only);
        visit(self);
        self.only = outer;
    }

    fn owned_by(&mut self, owner: String, visit: impl FnOnce(&mut Self)) {
        let outer = self.owner.replace(owner);
        visit(self);
        self.owner = outer;
    }

    fn negate(&mut self, condition: &Expr) {
        // cargo-mutants changes conditions with operators, and `if let` cannot be negated.
        if matches!(condition, Expr::MethodCall(_) | Expr::Call(_) | Expr::Path(_) | Expr::Field(_))
        {
            let range = range(condition);
            let negated = format!("!{}", &self.source.text[range.clone()]);
            self.add(Kind::Condition, range, negated);
        }
    }
}

impl<'ast> Visit<'ast> for Scan {
    fn visit_item(&mut self, item: &'ast Item) {
        if self.excludes(attributes(item), item) {
            return;
        }
        match item {
            Item::Mod(module) if module.content.is_none() => {
                self.modules.push(module.ident.to_string());
            }
            Item::Fn(function) => {
                let visit = |scan: &mut Self| visit::visit_item(scan, item);
                self.function(item, &function.sig.ident, &function.block, visit);
            }
            Item::Impl(block) => {
                let implements =
                    block.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
                if implements.is_some_and(|name| name.ident == "Debug" || name.ident == "Display") {
                    self.excluded.push(range(item));
                    return;
                }
                self.owned_by(type_name(&block.self_ty), |scan| visit::visit_item(scan, item));
            }
            Item::Trait(block) => {
                self.owned_by(block.ident.to_string(), |scan| visit::visit_item(scan, item));
            }
            Item::Macro(definition) if definition.mac.path.is_ident("macro_rules") => {
                for body in bodies(definition.mac.tokens.clone()) {
                    self.visit_file(&body);
                }
            }
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        match item {
            ImplItem::Fn(function) => {
                if !self.excludes(&function.attrs, item) {
                    let visit = |scan: &mut Self| visit::visit_impl_item(scan, item);
                    self.function(item, &function.sig.ident, &function.block, visit);
                }
            }
            ImplItem::Const(constant) if self.excludes(&constant.attrs, item) => {}
            _ => visit::visit_impl_item(self, item),
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        let Some(body) = &item.default else { return };
        self.function(item, &item.sig.ident, body, |scan| visit::visit_trait_item_fn(scan, item));
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        if does_nothing(statement) {
            self.excluded.push(range(statement));
            return;
        }
        if can_go(statement) && self.only != Some(range(statement)) {
            self.add(Kind::Statement, range(statement), "");
        }
        visit::visit_stmt(self, statement);
    }

    fn visit_expr_if(&mut self, node: &'ast syn::ExprIf) {
        self.negate(&node.cond);
        visit::visit_expr_if(self, node);
    }

    fn visit_expr_while(&mut self, node: &'ast syn::ExprWhile) {
        self.negate(&node.cond);
        visit::visit_expr_while(self, node);
    }

    fn visit_expr_path(&mut self, node: &'ast syn::ExprPath) {
        let Some(last) = node.path.segments.last() else { return };
        let strong = ["Acquire", "Release", "AcqRel", "SeqCst"];
        if strong.iter().any(|name| last.ident == name) {
            self.add(Kind::Ordering, range(node), "core::sync::atomic::Ordering::Relaxed");
        }
        visit::visit_expr_path(self, node);
    }

    fn visit_expr_lit(&mut self, node: &'ast syn::ExprLit) {
        if let Lit::Int(number) = &node.lit
            && let Ok(value) = number.base10_parse::<u128>()
        {
            self.add(Kind::Number, range(node), format!("{}{}", value + 1, number.suffix()));
        }
    }

    // An array of another length has another type, so the mutant would not compile.
    fn visit_type_array(&mut self, _: &'ast syn::TypeArray) {}
}

/// Returns true if `statement` is `let _ = name;`, which only marks a parameter as unused.
fn does_nothing(statement: &Stmt) -> bool {
    let Stmt::Local(syn::Local { pat: Pat::Wild(_), init: Some(init), .. }) = statement else {
        return false;
    };
    let is_name = |expression: &Expr| matches!(expression, Expr::Path(_));
    match &*init.expr {
        Expr::Tuple(tuple) => tuple.elems.iter().all(is_name),
        expression => is_name(expression),
    }
}

/// Returns true if `statement` is a call or an assignment whose value is not used.
fn can_go(statement: &Stmt) -> bool {
    match statement {
        Stmt::Local(local) => matches!(local.pat, Pat::Wild(_)),
        Stmt::Expr(expression, semicolon) => match expression {
            Expr::Call(_) | Expr::MethodCall(_) | Expr::Assign(_) => semicolon.is_some(),
            // A binary operator whose result is unused is a compound assignment.
            Expr::Binary(_) => semicolon.is_some(),
            Expr::Unsafe(block) => match &block.block.stmts[..] {
                [Stmt::Expr(Expr::Call(_) | Expr::MethodCall(_) | Expr::Assign(_), None)] => {
                    semicolon.is_some()
                }
                _ => false,
            },
            _ => false,
        },
        _ => false,
    }
}

/// Returns whether `cfg` holds in tests on this system, or `None` if it depends on more.
fn holds(cfg: &Meta) -> Option<bool> {
    match cfg {
        Meta::Path(name) => {
            let name = name.get_ident()?.to_string();
            match &*name {
                "unix" => Some(cfg!(unix)),
                "test" | "loom" | "miri" | "tsan" | "doctest" | "windows" => Some(false),
                _ => None,
            }
        }
        Meta::NameValue(pair) => {
            let Expr::Lit(syn::ExprLit { lit: Lit::Str(value), .. }) = &pair.value else {
                return None;
            };
            match &*pair.path.get_ident()?.to_string() {
                "target_os" => Some(value.value() == consts::OS),
                "target_arch" => Some(value.value() == consts::ARCH),
                "target_pointer_width" => Some(value.value() == usize::BITS.to_string()),
                // Only the shared library enables `static-tls`, and its tests do not run here.
                "feature" => Some(value.value() != "static-tls"),
                _ => None,
            }
        }
        Meta::List(list) => {
            let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
            let parts: Vec<_> = parts.ok()?.iter().map(holds).collect();
            match &*list.path.get_ident()?.to_string() {
                "all" if parts.contains(&Some(false)) => Some(false),
                "any" if parts.contains(&Some(true)) => Some(true),
                "all" | "any" if parts.contains(&None) => None,
                "all" => Some(true),
                "any" => Some(false),
                "not" => parts.first().copied().flatten().map(|part| !part),
                _ => None,
            }
        }
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    macro_rules! of_kinds {
        ($($kind:ident)*) => {
            match item {
                $(Item::$kind(item) => &item.attrs,)*
                _ => &[],
            }
        };
    }
    of_kinds!(Const Enum Fn Impl Macro Mod Static Struct Trait Use)
}

/// Returns the bodies of a `macro_rules!` that define items, with `$name` parsed as a plain name.
fn bodies(rules: TokenStream) -> Vec<File> {
    let groups = rules.into_iter().filter_map(|token| match token {
        TokenTree::Group(group) => Some(group),
        _ => None,
    });
    // Each rule consists of a pattern and a body.
    let bodies = groups.skip(1).step_by(2);
    bodies.filter_map(|body| syn::parse2(without_dollars(body.stream())).ok()).collect()
}

fn without_dollars(tokens: TokenStream) -> TokenStream {
    let without = tokens.into_iter().filter_map(|token| match token {
        TokenTree::Punct(punct) if punct.as_char() == '$' => None,
        TokenTree::Group(group) => {
            let mut inner = Group::new(group.delimiter(), without_dollars(group.stream()));
            inner.set_span(group.span());
            Some(inner.into())
        }
        token => Some(token),
    });
    without.collect()
}

fn type_name(name: &Type) -> String {
    match name {
        Type::Path(path) => {
            path.path.segments.last().map_or_else(String::new, |last| last.ident.to_string())
        }
        Type::Reference(reference) => format!("&{}", type_name(&reference.elem)),
        _ => "impl".to_owned(),
    }
}

fn range(node: &impl Spanned) -> Range<usize> {
    node.span().byte_range()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let scan = Scan::new("a", "a.rs".to_owned(), text.to_owned()).unwrap();
        scan.mutants().map(|mutant| mutant.name().replacen("a.rs: ", "", 1)).collect()
    }

    #[test]
    fn statements_conditions_orderings_and_numbers_are_changed() {
        let text = "impl A {\n    fn f(&self) {\n        self.g();\n        self.n += 1;\n        \
                    if self.h() {}\n        self.n.load(Ordering::Acquire)\n    }\n}\n";
        let expected = [
            "A::f: `self.g();` → ``",
            "A::f: `self.n += 1;` → ``",
            "A::f: `self.n += 1;` → `self.n += 2;`",
            "A::f: `if self.h() {}` → `if !self.h() {}`",
            "A::f: `self.n.load(Ordering::Acquire)` → `self.n.load(core::sync::atomic::Ordering::Relaxed)`",
        ];
        assert_eq!(names(text), expected);
    }

    #[test]
    fn a_statement_in_an_unsafe_block_goes_with_the_block() {
        let text =
            "fn f() {\n    unsafe { free(p) };\n    let _ = unsafe { advise(p) };\n    p\n}\n";
        let expected = ["f: `unsafe { free(p) };` → ``", "f: `let _ = unsafe { advise(p) };` → ``"];
        assert_eq!(names(text), expected);
    }

    #[test]
    fn items_that_a_macro_defines_are_changed_too() {
        let text = "macro_rules! implement {\n    ($api:ident) => {\n        \
                    impl $api::Allocator for A {\n            fn f(&self, at: $api) {\n                \
                    a();\n                b($api)\n            }\n        }\n    };\n}\n";
        assert_eq!(names(text), ["A::f: `a();` → ``"]);
    }

    #[test]
    fn the_only_statement_of_a_function_is_left_to_cargo_mutants() {
        assert_eq!(names("fn f() {\n    g();\n}\n"), [""; 0]);
    }

    #[test]
    fn marking_parameters_as_unused_is_no_statement_to_delete() {
        assert_eq!(names("fn f() {\n    let _ = (a, b);\n    let _ = c;\n    d\n}\n"), [""; 0]);
    }

    #[test]
    fn tests_formatting_and_other_systems_are_left_out() {
        for text in [
            "#[test]\nfn f() { g(1) }",
            "#[cfg(all(test, not(loom)))]\nmod tests { const A: usize = 1; }",
            "impl fmt::Debug for A { fn fmt(&self) { f.pad(1) } }",
            "#[cfg(not(unix))]\nfn f() { g(1) }",
        ] {
            assert_eq!(names(text), [""; 0], "{text}");
        }
        assert_eq!(names("#[cfg(not(any(loom, test)))]\nconst A: usize = 1;").len(), 1);
    }
}
