//! What commands must not make or change in the directory of a store.

use std::{fs, path::Path};

use assert_cmd::Command;
use leftfold_store::{EmbeddedStore, EventStore, LogOptions};

use crate::{consumers::park_two, leftfold, printed, said, served::Served};

/// A store with one event.
fn store() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    let append = ["append", "--stream", "s-1", "--type", "T"];
    printed(leftfold(data.path(), &append));
    data
}

/// The names in a directory.
fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(directory).unwrap();
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

/// The files in a directory, with what they hold and when they were changed.
fn contents(directory: &Path) -> Vec<(std::ffi::OsString, Vec<u8>, std::time::SystemTime)> {
    let file = |name: std::ffi::OsString| {
        let path = directory.join(&name);
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        (name, fs::read(path).unwrap(), changed)
    };
    names(directory).into_iter().map(file).collect()
}

/// A store with a user, a key, a group, and a consumer that parked events, as a process leaves it that was killed.
fn killed_store() -> tempfile::TempDir {
    let (data, copy) = (store(), tempfile::tempdir().unwrap());
    let password = tempfile::NamedTempFile::new().unwrap();
    fs::write(&password, "a password of some length").unwrap();
    let password = password.path().to_str().unwrap();
    let commands: [&[&str]; 4] = [
        &["append", "--stream", "s-1", "--type", "T"],
        &["append", "--stream", "s-1", "--type", "T"],
        &["groups", "create", "s-1", "mailer", "--from", "start"],
        &["users", "create", "ann", "--password-file", password],
    ];
    for command in commands {
        printed(leftfold(data.path(), command));
    }
    let key = ["keys", "create", "orders", "--grant", "read"];
    printed(leftfold(data.path(), &key));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = EmbeddedStore::open(data.path(), LogOptions::default());
        let store = store.await.unwrap();
        park_two(&store).await;
        for name in names(data.path()) {
            fs::copy(data.path().join(&name), copy.path().join(&name)).unwrap();
        }
        store.close().await.unwrap();
    });
    copy
}

#[test]
fn commands_that_list_and_show_change_nothing_in_the_directory_of_a_store() {
    let data = killed_store();
    let before = contents(data.path());
    let commands: [(&[&str], &str); 10] = [
        (&["verify"], "consumers                               1\n"),
        (&["consumers", "list"], "parked 2"),
        (&["consumers", "show", "mailer"], "mailer"),
        (&["consumers", "parked", "mailer"], "refused"),
        (&["groups", "list"], "s-1::mailer"),
        (&["groups", "show", "s-1", "mailer"], "mailer"),
        (&["groups", "parked", "s-1", "mailer"], ""),
        (&["users", "list"], "ann"),
        (&["keys", "list"], "orders"),
        (&["audit"], ""),
    ];
    for (command, expected) in commands {
        let text = printed(leftfold(data.path(), command));
        assert!(text.contains(expected), "{command:?}: {text}");
        assert!(contents(data.path()) == before, "{command:?}");
    }
    // A change still opens the files, and repairs what the process left.
    let removed = printed(leftfold(data.path(), &["consumers", "remove", "mailer"]));
    assert!(removed.contains("mailer removed"), "{removed}");
}

#[test]
fn verify_finds_damage_in_the_file_of_consumers_and_changes_nothing() {
    let data = killed_store();
    let file = data.path().join("consumers");
    let sound = fs::read(&file).unwrap();
    // The file also holds older pages, which nothing reads.
    let mut damaged = sound.clone();
    let places = sound.windows(6).enumerate();
    for (at, _) in places.filter(|(_, bytes)| bytes == b"mailer") {
        damaged[at] ^= 1;
    }
    for content in [damaged, Vec::new(), sound[..sound.len() / 2].to_vec()] {
        fs::write(&file, content).unwrap();
        let before = contents(data.path());
        let refused = said(leftfold(data.path(), &["verify"]), 4);
        assert!(refused.contains("consumers"), "{refused}");
        assert!(contents(data.path()) == before);
    }
    fs::write(&file, sound).unwrap();
    printed(leftfold(data.path(), &["verify"]));
}
