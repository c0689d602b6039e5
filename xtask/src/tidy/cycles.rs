//! Checks that no files use each other, directly or through other files.
//!
//! A file uses another file if it names an item that is defined there, possibly through a
//! re-export. Test modules and examples are not checked.

use std::collections::{BTreeMap, BTreeSet};

use syn::{Item, UseTree, visit::Visit};

use super::{source, tree::Tree};

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let roots = tree.files.keys().filter_map(|path| {
        let folder = path.strip_suffix("/lib.rs").or_else(|| path.strip_suffix("/main.rs"))?;
        (folder.ends_with("src") && !path.starts_with("examples/")).then_some((path, folder))
    });
    roots
        .flat_map(|(root, folder)| {
            let package = Package::of(tree, root, folder);
            let found = package.cycles().into_iter();
            found.map(|cycle| format!("{folder}: {}", cycle.join(" → "))).collect::<Vec<_>>()
        })
        .collect()
}

type Path = Vec<String>;

struct Module {
    file: String,
    names: BTreeMap<String, Path>,
    globs: Vec<Path>,
}

#[derive(Default)]
struct Package {
    modules: BTreeMap<Path, Module>,
    named: Vec<(Path, Path)>,
}

impl Package {
    fn of(tree: &Tree, root: &str, folder: &str) -> Self {
        let mut package = Self::default();
        let prefix = format!("{folder}/");
        for (path, text) in &tree.files {
            let Some(file) = path.strip_prefix(&prefix) else { continue };
            let Some(stem) = file.strip_suffix(".rs") else { continue };
            let Some(parsed) = source::production(text) else { continue };
            let module = match path == root {
                true => Path::new(),
                false => stem.trim_end_matches("/mod").split('/').map(str::to_owned).collect(),
            };
            package.add(module, file, &parsed.items);
        }
        package
    }

    fn add(&mut self, path: Path, file: &str, items: &[Item]) {
        let mut module =
            Module { file: file.to_owned(), names: BTreeMap::new(), globs: Vec::new() };
        for item in items {
            match item {
                Item::Use(item) => flatten(&item.tree, &mut Path::new(), &mut module),
                Item::Mod(inner) => {
                    if let Some((_, items)) = &inner.content {
                        let path = [&path[..], &[inner.ident.to_string()]].concat();
                        self.add(path, file, items);
                    }
                }
                item => {
                    let mut paths = Paths(Vec::new());
                    paths.visit_item(item);
                    self.named.extend(paths.0.into_iter().map(|named| (path.clone(), named)));
                }
            }
        }
        let used = module.names.values().chain(&module.globs);
        self.named.extend(used.map(|used| (path.clone(), used.clone())));
        self.modules.insert(path, module);
    }

    /// Returns the module that defines `name`, as seen from the module `from`.
    fn resolve(&self, from: &Path, name: &[String], depth: usize) -> Option<Path> {
        // Names refer to each other in a circle only in code that does not compile.
        if depth > 20 {
            return None;
        }
        let (first, mut rest) = name.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Path::new(),
            "self" => from.clone(),
            "super" => from.split_last()?.1.to_vec(),
            _ => {
                rest = name;
                from.clone()
            }
        };
        let mut is_local = rest.len() < name.len();
        while let Some((next, others)) = rest.split_first() {
            let child = [&at[..], std::slice::from_ref(next)].concat();
            if next == "super" {
                at.pop()?;
            } else if self.modules.contains_key(&child) {
                at = child;
            } else if let Some(target) = self.modules.get(&at)?.names.get(next) {
                if target[..] == name[..] {
                    return None;
                }
                let target = [target, others].concat();
                return self.resolve(&at, &target, depth + 1);
            } else {
                return is_local.then_some(at);
            }
            is_local = true;
            rest = others;
        }
        Some(at)
    }

    fn uses(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut uses = BTreeMap::<_, BTreeSet<_>>::new();
        for (from, name) in &self.named {
            let Some(to) = self.resolve(from, name, 0) else { continue };
            let (from, to) = (&self.modules[from].file, &self.modules[&to].file);
            if from != to {
                uses.entry(&**from).or_default().insert(&**to);
            }
        }
        uses
    }

    /// Returns one cycle for each file in a cycle, without repetitions.
    fn cycles(&self) -> Vec<Vec<String>> {
        let uses = self.uses();
        let mut known = BTreeSet::new();
        let mut cycles = Vec::new();
        for &file in uses.keys() {
            if known.contains(file) {
                continue;
            }
            if let Some(cycle) = shortest_way_back(file, &uses) {
                known.extend(cycle.iter().copied());
                cycles.push(cycle.into_iter().map(str::to_owned).collect());
            }
        }
        cycles
    }
}

fn shortest_way_back<'a>(
    file: &'a str,
    uses: &BTreeMap<&'a str, BTreeSet<&'a str>>,
) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![file]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for &next in uses.get(way.last()?).into_iter().flatten() {
                let way = [&way[..], &[next]].concat();
                if next == file {
                    return Some(way);
                }
                if seen.insert(next) {
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}

fn flatten(tree: &UseTree, before: &mut Path, module: &mut Module) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, module);
            before.pop();
        }
        UseTree::Name(name) if name.ident == "self" => {
            let last = before.last().cloned().unwrap_or_default();
            module.names.insert(last, before.clone());
        }
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            module.names.insert(name.clone(), [&before[..], &[name]].concat());
        }
        UseTree::Rename(rename) => {
            let target = [&before[..], &[rename.ident.to_string()]].concat();
            module.names.insert(rename.rename.to_string(), target);
        }
        UseTree::Glob(_) => module.globs.push(before.clone()),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, module)),
    }
}

/// Collects the paths of several segments in an item. A `use` covers shorter paths.
struct Paths(Vec<Path>);

impl<'ast> Visit<'ast> for Paths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> =
            files.iter().map(|(path, text)| (format!("c/src/{path}"), *text)).collect();
        let files: Vec<_> = files.iter().map(|(path, text)| (&**path, *text)).collect();
        check(&Tree::with(&files))
    }

    #[test]
    fn files_that_use_each_other_one_way_pass() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use a::A; pub use b::B;"),
            ("a.rs", "use crate::B; pub struct A(B);"),
            ("b.rs", "pub struct B; #[cfg(test)] mod tests { use crate::A; }"),
        ];
        assert!(violations(&files).is_empty());
    }

    #[test]
    fn two_files_that_use_each_other_are_a_violation() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use a::A;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "pub struct B; fn f(_: crate::A) {}"),
        ];
        assert_eq!(violations(&files), ["c/src: a.rs → b.rs → a.rs"]);
    }

    #[test]
    fn a_cycle_through_a_third_file_or_a_parent_is_a_violation() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "mod c; pub struct A; fn f() { crate::b::g() }"),
            ("a/c.rs", "use super::A; pub fn h(_: A) {}"),
            ("b.rs", "pub use crate::a::c::h as i; pub fn g() {}"),
        ];
        assert_eq!(violations(&files), ["c/src: a.rs → b.rs → a/c.rs → a.rs"]);
    }

    #[test]
    fn modules_inside_of_a_file_and_names_of_other_crates_are_no_cycle() {
        let files = [
            ("lib.rs", "mod a; use std::fmt; mod inner { pub struct I; }"),
            ("a.rs", "use other::lib::X; mod b { use super::C; } struct C(core::fmt::Error);"),
        ];
        assert!(violations(&files).is_empty());
    }
}
