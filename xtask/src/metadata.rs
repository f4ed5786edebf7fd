//! What cargo knows about the workspace's packages.
//!
//! **Owns:** the call of `cargo metadata`, and the few fields that the checks need.
//! **Does not know:** which dependencies or licences are good.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use crate::{CheckError, tree::Tree};

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The packages of this workspace.
    MembersOnly,
    /// Those, and everything that they depend on, on every platform.
    WithDependencies,
}

/// The packages that a build of the workspace can touch.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
}

/// One package.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Path of the manifest below the root; `None` for what comes from elsewhere.
    pub(crate) manifest: Option<String>,
    pub(crate) license: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One dependency that a manifest names.
#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Whether only tests, examples and benchmarks get it.
    pub(crate) for_tests: bool,
}

impl Workspace {
    pub(crate) fn read(tree: &Tree, depth: Depth) -> Result<Self, CheckError> {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .args(["metadata", "--format-version", "1"])
            .current_dir(tree.root());
        if depth == Depth::MembersOnly {
            command.arg("--no-deps");
        }
        let output = command
            .output()
            .map_err(|e| CheckError::new("run `cargo metadata`", e))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(CheckError::new("run `cargo metadata`", said.trim()));
        }
        let value: Value = serde_json::from_slice(&output.stdout)
            .map_err(|e| CheckError::new("parse what `cargo metadata` printed", e))?;
        let root = format!("{}/", tree.root().display());
        let packages = list(&value, "packages").map(|package| Package::new(package, &root));
        Ok(Self {
            packages: packages.collect(),
        })
    }

    /// The names of the workspace's own packages.
    pub(crate) fn member_names(&self) -> Vec<String> {
        let members = self
            .packages
            .iter()
            .filter(|package| package.manifest.is_some());
        members.map(|package| package.name.clone()).collect()
    }

    /// The names of all dependencies that are not members, each once.
    pub(crate) fn names_from_elsewhere(&self) -> Vec<String> {
        let ours = self.member_names();
        let all = self
            .packages
            .iter()
            .flat_map(|package| &package.dependencies);
        let names: BTreeSet<&String> = all
            .map(|dependency| &dependency.name)
            .filter(|name| !ours.contains(name))
            .collect();
        names.into_iter().cloned().collect()
    }
}

impl Package {
    fn new(value: &Value, root: &str) -> Self {
        let from_elsewhere = value.get("source").is_some_and(Value::is_string);
        let manifest = text(value, "manifest_path").filter(|_| !from_elsewhere);
        Self {
            name: text(value, "name").unwrap_or_default(),
            version: text(value, "version").unwrap_or_default(),
            manifest: manifest.map(|path| path.strip_prefix(root).unwrap_or(&path).to_owned()),
            license: text(value, "license"),
            dependencies: list(value, "dependencies")
                .map(|dependency| Dependency {
                    name: text(dependency, "name").unwrap_or_default(),
                    for_tests: text(dependency, "kind").as_deref() == Some("dev"),
                })
                .collect(),
        }
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_from_a_registry_have_no_manifest_of_ours() {
        let ours = serde_json::json!({
            "name": "a", "version": "1.0.0", "source": null, "manifest_path": "/p/crates/a/Cargo.toml",
            "dependencies": [{"name": "b", "kind": null}, {"name": "c", "kind": "dev"}],
        });
        let package = Package::new(&ours, "/p/");
        assert_eq!(package.manifest.as_deref(), Some("crates/a/Cargo.toml"));
        let for_tests: Vec<bool> = package.dependencies.iter().map(|d| d.for_tests).collect();
        assert_eq!(for_tests, [false, true]);

        let theirs = serde_json::json!({
            "name": "b", "source": "registry+x", "manifest_path": "/r/b/Cargo.toml", "license": "MIT",
        });
        assert_eq!(Package::new(&theirs, "/p/").manifest, None);
    }
}
