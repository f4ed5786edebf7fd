//! Which file of a crate imports from which: the module graph, read from the syntax.
//!
//! **Owns:** files to modules, and paths to the file that declares what they name, through re-exports.
//! **Does not know:** which imports are allowed; that is `cycles` and `modules`.
//! **Invariants:** test code is left out; a `pub use` of a module's own descendants is no import, because it moves a
//! name and uses nothing; a path that leads to another crate is no import.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    UseTree,
    spanned::Spanned,
    visit::{self, Visit},
};

use crate::{CheckError, source::Source};

/// Deepest chain of re-exports that is followed; a longer one is a cycle of re-exports.
const REEXPORTS_MAX: usize = 8;

/// One file, and the module it is.
#[derive(Clone, Debug)]
pub(crate) struct ModuleFile {
    /// Path below the project's root.
    pub(crate) path: String,
    /// Names of the modules from the crate's root, which is empty for the root itself.
    pub(crate) module: Vec<String>,
}

/// One use of a name that another file declares.
#[derive(Clone, Debug)]
pub(crate) struct Import {
    /// Index of the file that imports.
    pub(crate) from: usize,
    /// Index of the file that declares the name.
    pub(crate) to: usize,
    /// Line of the import, from 1.
    pub(crate) line: usize,
}

/// Imports between modules side by side, each with the place of its first.
pub(crate) type Edges = BTreeMap<(String, String), (String, usize)>;

/// The files of one crate and the imports between them.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    pub(crate) files: Vec<ModuleFile>,
    pub(crate) imports: Vec<Import>,
}

impl Graph {
    /// Reads the graph of the crate whose files lie below `root`, which ends in `src/`.
    pub(crate) fn new(root: &str, sources: &[Source]) -> Result<Self, CheckError> {
        let mut files = Vec::new();
        let mut mentions = Vec::new();
        let mut modules = BTreeMap::new();
        for source in sources {
            let Some(module) = module_of(root, source) else {
                continue;
            };
            let syntax = syn::parse_file(&source.text)
                .map_err(|e| CheckError::new(format_args!("parse {}", source.path), e))?;
            let mut reader = Reader {
                source,
                module: module.clone(),
                modules: vec![module.clone()],
                mentions: Vec::new(),
            };
            reader.visit_file(&syntax);
            for declared in reader.modules {
                modules.insert(declared, files.len());
            }
            mentions.push(reader.mentions);
            files.push(ModuleFile {
                path: source.path.clone(),
                module,
            });
        }
        let names = Names {
            modules: &modules,
            mentions: &mentions,
        };
        let mut imports = Vec::new();
        for (from, found) in mentions.iter().enumerate() {
            for mention in found.iter().filter(|mention| !mention.is_reexport()) {
                if let Some(to) = names.file_of(&mention.module, &mention.path, 0)
                    && to != from
                {
                    imports.push(Import {
                        from,
                        to,
                        line: mention.line,
                    });
                }
            }
        }
        Ok(Self { files, imports })
    }

    /// For each module, the imports between the modules in it, each of those taken with all below it.
    ///
    /// A module's own file is one of them, for a folder beside it: a folder is a concern of its own. A file beside it
    /// shares its concern, and may use what it declares.
    pub(crate) fn levels(&self) -> BTreeMap<Vec<String>, Edges> {
        let mut levels: BTreeMap<Vec<String>, Edges> = BTreeMap::new();
        for import in &self.imports {
            let (Some(from), Some(to)) = (self.files.get(import.from), self.files.get(import.to))
            else {
                continue;
            };
            let parts = from.module.iter().zip(&to.module);
            let shared = parts.take_while(|(a, b)| a == b).count();
            let name = |module: &[String]| module.get(..=shared).unwrap_or(module).join("::");
            let own_file = from.module.len() == shared || to.module.len() == shared;
            let folder = self.is_folder(&from.module, shared) || self.is_folder(&to.module, shared);
            if own_file && (shared == 0 || !folder) {
                continue;
            }
            let parent = from.module.get(..shared).unwrap_or_default().to_vec();
            let place = (from.path.clone(), import.line);
            let edges = levels.entry(parent).or_default();
            edges
                .entry((name(&from.module), name(&to.module)))
                .or_insert(place);
        }
        levels
    }

    /// The modules in a module, by their full names.
    pub(crate) fn children(&self, parent: &[String]) -> BTreeSet<String> {
        let below = self
            .files
            .iter()
            .filter(|file| file.module.len() > parent.len() && file.module.starts_with(parent));
        below
            .map(|file| {
                file.module
                    .get(..=parent.len())
                    .unwrap_or_default()
                    .join("::")
            })
            .collect()
    }

    /// Whether the module below the first `shared` names of a file's module has modules in it.
    fn is_folder(&self, module: &[String], shared: usize) -> bool {
        let Some(child) = module.get(..=shared) else {
            return false;
        };
        let inside =
            |file: &ModuleFile| file.module.len() > child.len() && file.module.starts_with(child);
        self.files.iter().any(inside)
    }
}

/// The module that a file is, unless the file is a test, a build script or another program.
fn module_of(root: &str, source: &Source) -> Option<Vec<String>> {
    let below_root = source.path.strip_prefix(root)?.strip_suffix(".rs")?;
    if source.is_test_file() || below_root.starts_with("bin/") {
        return None;
    }
    let mut module: Vec<String> = below_root.split('/').map(str::to_owned).collect();
    if matches!(
        module.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        module.pop();
    }
    Some(module)
}

/// A path that a file writes.
#[derive(Clone, Debug)]
struct Mention {
    /// The module that the path is written in.
    module: Vec<String>,
    path: Vec<String>,
    /// The name that it binds, if it is imported.
    binds: Option<String>,
    exported: bool,
    line: usize,
}

impl Mention {
    /// Whether it only moves a name of a descendant up.
    fn is_reexport(&self) -> bool {
        let goes_down = self
            .path
            .first()
            .is_some_and(|first| !matches!(first.as_str(), "crate" | "super"));
        self.exported && goes_down
    }
}

/// Collects what one file mentions.
#[derive(Debug)]
struct Reader<'a> {
    source: &'a Source,
    /// The module that is read: the file's, or one written inside it.
    module: Vec<String>,
    /// Every module of the file.
    modules: Vec<Vec<String>>,
    mentions: Vec<Mention>,
}

impl Reader<'_> {
    fn add(&mut self, path: Vec<String>, binds: Option<String>, exported: bool, line: usize) {
        if !self.source.is_test_line(line) {
            self.mentions.push(Mention {
                module: self.module.clone(),
                path,
                binds,
                exported,
                line,
            });
        }
    }

    fn add_use(&mut self, tree: &UseTree, before: &[String], exported: bool) {
        let with = |ident: &syn::Ident| {
            let mut path = before.to_vec();
            if ident != "self" || path.is_empty() {
                path.push(ident.to_string());
            }
            path
        };
        match tree {
            UseTree::Path(path) => self.add_use(&path.tree, &with(&path.ident), exported),
            UseTree::Name(name) => {
                let path = with(&name.ident);
                let bound = path.last().cloned();
                self.add(path, bound, exported, name.ident.span().start().line);
            }
            UseTree::Rename(rename) => {
                let bound = Some(rename.rename.to_string());
                let line = rename.ident.span().start().line;
                self.add(with(&rename.ident), bound, exported, line);
            }
            UseTree::Glob(glob) => {
                self.add(before.to_vec(), None, exported, glob.span().start().line);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(tree, before, exported);
                }
            }
        }
    }

    /// Paths from the root or from the parent in what a macro is given.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.add_rooted(std::mem::take(&mut path), line);
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.add_rooted(std::mem::take(&mut path), line);
                    colons = 0;
                    self.add_tokens(group.stream());
                }
                _ => {
                    self.add_rooted(std::mem::take(&mut path), line);
                    colons = 0;
                }
            }
        }
        self.add_rooted(path, line);
    }

    fn add_rooted(&mut self, path: Vec<String>, line: usize) {
        let rooted = path
            .first()
            .is_some_and(|first| matches!(first.as_str(), "crate" | "super"));
        if rooted && path.len() > 1 {
            self.add(path, None, false, line);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_some() && !self.source.is_test_line(item.span().start().line) {
            self.module.push(item.ident.to_string());
            self.modules.push(self.module.clone());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let exported = !matches!(item.vis, syn::Visibility::Inherited);
        self.add_use(&item.tree, &[], exported);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if names.len() > 1 && path.leading_colon.is_none() {
            self.add(names, None, false, path.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.add_tokens(call.tokens.clone());
    }

    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

/// What the names of a crate mean.
#[derive(Debug)]
struct Names<'a> {
    modules: &'a BTreeMap<Vec<String>, usize>,
    mentions: &'a [Vec<Mention>],
}

impl Names<'_> {
    /// The file that declares what a path names, seen from a module.
    fn file_of(&self, from: &[String], path: &[String], depth: usize) -> Option<usize> {
        let (mut module, rest) = self.start(from, path)?;
        for (index, name) in rest.iter().enumerate() {
            let mut child = module.clone();
            child.push(name.clone());
            if self.modules.contains_key(&child) {
                module = child;
                continue;
            }
            let Some(import) = self
                .binding(&module, name)
                .filter(|_| depth < REEXPORTS_MAX)
            else {
                break;
            };
            let mut whole = import.path.clone();
            whole.extend_from_slice(rest.get(index + 1..).unwrap_or_default());
            // A name of another crate that a module re-exports: the re-export is what is imported.
            return self
                .file_of(&module, &whole, depth + 1)
                .or_else(|| self.modules.get(&module).copied());
        }
        self.modules.get(&module).copied()
    }

    /// The module that a path begins in, and what is left of the path.
    fn start<'p>(
        &self,
        from: &[String],
        path: &'p [String],
    ) -> Option<(Vec<String>, &'p [String])> {
        let mut module = from.to_vec();
        let mut rest = path;
        let first = rest.first()?.as_str();
        match first {
            "crate" => {
                module.clear();
                rest = rest.get(1..)?;
            }
            "self" => rest = rest.get(1..)?,
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    module.pop()?;
                    rest = rest.get(1..)?;
                }
            }
            _ => {
                let mut child = module.clone();
                child.push(first.to_owned());
                if !self.modules.contains_key(&child) {
                    return None;
                }
            }
        }
        Some((module, rest))
    }

    /// The import of a module that binds a name.
    fn binding(&self, module: &[String], name: &str) -> Option<&Mention> {
        let file = self.modules.get(module)?;
        self.mentions
            .get(*file)?
            .iter()
            .find(|mention| mention.module == module && mention.binds.as_deref() == Some(name))
    }
}
