//! Hands manifests and the engine's files to the two tables.
//!
//! **Owns:** which files are looked at. **Does not know:** what is allowed.

use crate::{
    CheckError,
    metadata::{Depth, Workspace},
    source::Source,
    tree::Tree,
    violation::Violation,
};

use super::{crates, modules};

/// Every edge that the tables do not allow.
pub(crate) fn check(tree: &Tree) -> Result<Vec<Violation>, CheckError> {
    let mut found = Vec::new();
    for package in &Workspace::read(tree, Depth::MembersOnly)?.packages {
        let Some(path) = &package.manifest else {
            continue;
        };
        found.extend(crates::check(package, path, &tree.text(path)?));
    }
    let mut sources = Vec::new();
    for path in tree.files("rs")? {
        if path.starts_with(modules::ROOT) {
            sources.push(Source::new(path.clone(), tree.text(&path)?));
        }
    }
    found.extend(modules::check(&sources));
    Ok(found)
}
