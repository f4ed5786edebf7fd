//! The project's files, as the checks see them.
//!
//! **Owns:** where the root is, and which files belong to the project.
//! **Does not know:** what is in the files.
//! **Invariants:** paths are relative to the root, use `/`, and come in sorted order, so that every run of a
//! check prints the same lines; build output and hidden folders other than `.ci` are never entered.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::CheckError;

/// Folders that hold what tools made, not what people wrote.
const NOT_OURS: [&str; 3] = ["target", "node_modules", "data"];

/// The project's folder.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree that this program was started in: the nearest folder upwards that has a lock file.
    pub(crate) fn here() -> Result<Self, CheckError> {
        let start =
            std::env::current_dir().map_err(|e| CheckError::new("find the current folder", e))?;
        match start
            .ancestors()
            .find(|folder| folder.join("Cargo.lock").is_file())
        {
            Some(root) => Ok(Self {
                root: root.to_path_buf(),
            }),
            None => Err(CheckError::new(
                "find the project",
                format_args!("no Cargo.lock in {} or above", start.display()),
            )),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether a file or folder stands at a path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    pub(crate) fn text(&self, path: &str) -> Result<String, CheckError> {
        fs::read_to_string(self.root.join(path))
            .map_err(|e| CheckError::new(format_args!("read {path}"), e))
    }

    /// All files with an extension, below the root.
    pub(crate) fn files(&self, extension: &str) -> Result<Vec<String>, CheckError> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            let failed = |e| CheckError::new(format_args!("list {}", folder.display()), e);
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let kind = entry.file_type().map_err(failed)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if kind.is_dir() {
                    let hidden = name.starts_with('.') && name != ".ci";
                    if !hidden && !NOT_OURS.contains(&name.as_str()) {
                        folders.push(entry.path());
                    }
                } else if kind.is_file()
                    && Path::new(&name).extension().is_some_and(|e| e == extension)
                    && let Ok(path) = entry.path().strip_prefix(&self.root)
                {
                    found.push(path.to_string_lossy().replace('\\', "/"));
                }
            }
        }
        found.sort();
        Ok(found)
    }
}
