//! What commands must not make in the directory of a store, which would not open again.

use std::path::Path;

use assert_cmd::Command;

use crate::{leftfold, printed, said, served::Served};

/// A store with one event.
fn store() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    let append = ["append", "--stream", "s-1", "--type", "T"];
    printed(leftfold(data.path(), &append));
    data
}

/// The names in a directory.
fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn a_file_within_the_directory_of_another_store_is_refused() {
    let (data, other) = (store(), store());
    let before = names(other.path());
    let file = other.path().join("x.jsonl");
    for command in ["export", "salvage"] {
        let refused = said(leftfold(data.path(), &[command, file.to_str().unwrap()]), 2);
        assert!(refused.contains("directory of a store"), "{refused}");
    }
    assert_eq!(names(other.path()), before);
    printed(leftfold(other.path(), &["read"]));
}

#[test]
fn an_export_of_a_server_into_the_directory_of_its_store_is_refused() {
    let data = store();
    let server = Served::with(&["--data", data.path().to_str().unwrap()]);
    let url = format!("leftfold://{}", server.address);
    let file = data.path().join("x.jsonl");
    let mut export = Command::cargo_bin("leftfold").unwrap();
    let export = export.args(["export", "--url", &url]).arg(&file).assert();
    let refused = said(export, 2);
    assert!(refused.contains("directory of a store"), "{refused}");
    assert_eq!(server.terminate().0, Some(0));
    printed(leftfold(data.path(), &["read"]));
}

#[test]
fn a_benchmark_within_the_directory_of_a_store_is_refused() {
    let data = store();
    let before = names(data.path());
    let refused = said(
        leftfold(data.path(), &["bench", "append", "--seconds", "1"]),
        2,
    );
    assert!(refused.contains("directory of a store"), "{refused}");
    assert_eq!(names(data.path()), before);
}
