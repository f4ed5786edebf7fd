//! Hands manifests and source files to the tables.
//!
//! **Owns:** which files are looked at. **Does not know:** what is allowed.

use crate::{
    CheckError,
    metadata::{Depth, Workspace},
    source::Source,
    tree::Tree,
    violation::Violation,
};

use super::{crates, cycles, graph::Graph, modules, restricted_apis, unguarded_store};

/// Every edge that the tables do not allow.
pub(crate) fn check(tree: &Tree) -> Result<Vec<Violation>, CheckError> {
    let mut found = Vec::new();
    for package in &Workspace::read(tree, Depth::MembersOnly)?.packages {
        let Some(path) = &package.manifest else {
            continue;
        };
        found.extend(crates::check(package, path, &tree.text(path)?));
        let root = path.replace("Cargo.toml", "src/");
        let mut sources = Vec::new();
        for path in tree.files("rs")? {
            if path.starts_with(&root) {
                sources.push(Source::new(path.clone(), tree.text(&path)?));
            }
        }
        let graph = Graph::new(&root, &sources)?;
        found.extend(cycles::check(&package.name, &graph));
        found.extend(modules::check(&package.name, path, &graph));
        found.extend(restricted_apis::check(&sources));
        found.extend(unguarded_store::check(&sources));
    }
    Ok(found)
}
