//! Walks the tree and hands every file to the rules that are about it.
//!
//! **Owns:** which files a rule looks at. **Does not know:** what the rules say.

use crate::{
    CheckError,
    metadata::{Depth, Workspace},
    source::Source,
    tree::Tree,
    violation::Violation,
};

use super::{form, glossary, ledger, links, map, names};

/// Every breach of form in the tree, in the order of the files.
pub(crate) fn check(tree: &Tree) -> Result<Vec<Violation>, CheckError> {
    let mut found = Vec::new();
    let banned = glossary::banned(&tree.text(glossary::DOCUMENT)?);
    let mut known = ledger::Known::default();
    for path in tree.files("rs")? {
        known.add(&path, &tree.text(&path)?);
        let source = Source::new(path.clone(), tree.text(&path)?);
        found.extend(form::check(&source));
        found.extend(names::check(&source));
        found.extend(glossary::check(&source, &banned)?);
    }
    if tree.has(ledger::DOCUMENT) {
        found.extend(ledger::check(&tree.text(ledger::DOCUMENT)?, &known));
    }
    for path in tree.files("md")? {
        let text = tree.text(&path)?;
        found.extend(links::check(&path, &text, &|target| {
            if target.ends_with(".md") {
                tree.text(target).ok().map(links::Target::Document)
            } else {
                tree.has(target).then_some(links::Target::Other)
            }
        }));
    }
    let workspace = Workspace::read(tree, Depth::MembersOnly)?;
    let modules = map::modules(&tree.text("crates/leftfold-log/src/lib.rs")?);
    let document = tree
        .has(map::DOCUMENT)
        .then(|| tree.text(map::DOCUMENT))
        .transpose()?;
    found.extend(map::check(
        document.as_deref(),
        &workspace.member_names(),
        &modules,
    ));
    let dependencies = tree.text(map::DEPENDENCIES)?;
    found.extend(map::check_dependencies(
        &dependencies,
        &workspace.names_from_elsewhere(),
    ));
    Ok(found)
}
