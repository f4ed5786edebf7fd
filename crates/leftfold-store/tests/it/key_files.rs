//! Files of keys that a process left behind in the middle of destroying a key.
//!
//! **Owns:** each state in which it can end. **Does not know:** keys in other places.
//! **Invariants:** a state is made of files, as the process would leave them.

#![expect(
    clippy::disallowed_methods,
    reason = "the test makes files as a process leaves them"
)]

use std::{fs, path::PathBuf};

use leftfold_store::{
    EmbeddedStore, EventStore, LogOptions,
    keys::{FileKeys, KeyStore, Subject, SubjectKey},
};
use tempfile::TempDir;

fn guest(id: &str) -> Subject {
    Subject {
        tenant: String::new(),
        kind: "guest".to_owned(),
        id: id.to_owned(),
    }
}

/// Keys of one guest, closed.
async fn with_key(directory: &TempDir) -> (PathBuf, SubjectKey) {
    let path = directory.path().join("keys");
    let keys = FileKeys::open(&path).await.unwrap();
    let key = keys.key(&guest("g1")).await.unwrap();
    (path, key)
}

fn names(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_file_that_was_replaced_and_not_yet_overwritten_is_overwritten_by_the_next_open() {
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, key) = with_key(&directory).await;
    let old = directory.path().join("keys.old");
    fs::copy(&path, &old).unwrap();
    // Another name of the same bytes, to see what becomes of them.
    let bytes = elsewhere.path().join("bytes");
    fs::hard_link(&old, &bytes).unwrap();
    fs::write(directory.path().join("keys.new"), b"half of it").unwrap();
    let keys = FileKeys::open(&path).await.unwrap();
    assert_eq!(keys.existing(&guest("g1")).await.unwrap(), Some(key));
    assert_eq!(names(&directory), ["keys"]);
    assert!(fs::read(&bytes).unwrap().iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn a_file_whose_replacement_is_not_in_place_is_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let (path, key) = with_key(&directory).await;
    fs::rename(&path, directory.path().join("keys.old")).unwrap();
    fs::write(directory.path().join("keys.new"), b"whatever it is").unwrap();
    let keys = FileKeys::open(&path).await.unwrap();
    assert_eq!(keys.existing(&guest("g1")).await.unwrap(), Some(key));
    assert_eq!(names(&directory), ["keys"]);
    keys.destroy(&guest("g1")).await.unwrap();
    assert_eq!(keys.existing(&guest("g1")).await.unwrap(), None);
    assert_eq!(names(&directory), ["keys"]);
}

#[tokio::test]
async fn keys_that_another_process_has_open_are_refused_and_none_of_its_files_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let (path, key) = with_key(&directory).await;
    let open = FileKeys::open(&path).await.unwrap();
    let other = |name: &str| directory.path().join(name);
    fs::write(other("keys.new"), b"in the making").unwrap();
    fs::write(other("keys.old"), b"being overwritten").unwrap();
    let refused = FileKeys::open(&path).await.unwrap_err();
    assert!(
        refused.to_string().starts_with("keys are unavailable"),
        "{refused}"
    );
    assert_eq!(fs::read(other("keys.new")).unwrap(), b"in the making");
    assert_eq!(fs::read(other("keys.old")).unwrap(), b"being overwritten");
    assert_eq!(open.existing(&guest("g1")).await.unwrap(), Some(key));
}

#[tokio::test]
async fn keys_that_another_process_is_replacing_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (path, _) = with_key(&directory).await;
    let open = FileKeys::open(&path).await.unwrap();
    // As between the two renames of `destroy`: the old file is locked, and the new one has no name yet.
    fs::rename(&path, directory.path().join("keys.old")).unwrap();
    assert!(FileKeys::open(&path).await.is_err());
    assert_eq!(names(&directory), ["keys.old"]);
    drop(open);
    assert!(FileKeys::open(&path).await.is_ok());
    assert_eq!(names(&directory), ["keys"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_was_put_in_the_place_of_the_open_one_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (path, _) = with_key(&directory).await;
    let keys = FileKeys::open(&path).await.unwrap();
    // As an operator does who puts a backup in the place of a directory that is in use.
    let moved = directory.path().join("moved");
    let backup = fs::read(&path).unwrap();
    fs::rename(&path, &moved).unwrap();
    fs::write(&path, &backup).unwrap();
    let refused = keys.destroy(&guest("g1")).await.unwrap_err().to_string();
    assert!(refused.contains("was moved or replaced"), "{refused}");
    assert_eq!(names(&directory), ["keys", "moved"]);
    assert!(fs::read(&path).unwrap() == backup, "it is another's");
    fs::remove_file(&path).unwrap();
    assert!(keys.destroy(&guest("g1")).await.is_err());
    assert_eq!(names(&directory), ["moved"]);
    // In its own place again, the open file is replaced, and nothing holds the key.
    fs::rename(&moved, &path).unwrap();
    keys.destroy(&guest("g1")).await.unwrap();
    assert_eq!(keys.existing(&guest("g1")).await.unwrap(), None);
    assert_eq!(names(&directory), ["keys"]);
}

/// Each reader finds the file whole, so a process may be killed at any moment while it is made.
#[tokio::test]
async fn the_file_is_never_seen_half_made_and_what_was_left_of_an_earlier_one_is_replaced() {
    for _ in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        fs::write(directory.path().join("keys.tmp"), [0; 5_000]).unwrap();
        let (done, making) = std::sync::mpsc::channel::<()>();
        let seen = path.clone();
        let watching = std::thread::Builder::new().name("watching".into());
        let watching = watching.spawn(move || {
            while making.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                if let Ok(bytes) = fs::read(&seen) {
                    assert_eq!(bytes.get(..4), Some(&b"redb"[..]), "{} bytes", bytes.len());
                }
            }
        });
        let keys = FileKeys::open(&path).await.unwrap();
        let key = keys.key(&guest("g1")).await.unwrap();
        done.send(()).unwrap();
        watching.unwrap().join().unwrap();
        drop(keys);
        let keys = FileKeys::open(&path).await.unwrap();
        assert_eq!(keys.existing(&guest("g1")).await.unwrap(), Some(key));
        assert_eq!(names(&directory), ["keys"]);
    }
}

#[tokio::test]
async fn keys_that_another_process_is_making_are_refused_and_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let (path, key) = with_key(&directory).await;
    let open = FileKeys::open(&path).await.unwrap();
    // As before the file has its name: it is locked under the temporary one.
    let unfinished = directory.path().join("keys.tmp");
    fs::rename(&path, &unfinished).unwrap();
    let bytes = fs::read(&unfinished).unwrap();
    assert!(FileKeys::open(&path).await.is_err());
    assert_eq!(names(&directory), ["keys.tmp"]);
    assert!(fs::read(&unfinished).unwrap() == bytes, "it is another's");
    assert_eq!(open.existing(&guest("g1")).await.unwrap(), Some(key));
}

#[tokio::test]
async fn a_damaged_file_tells_of_no_key_that_it_was_destroyed_or_is_another() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let mut expected = Vec::new();
    {
        let keys = FileKeys::open(&path).await.unwrap();
        for n in 0..40 {
            let subject = guest(&format!("g{n}"));
            expected.push((keys.key(&subject).await.unwrap(), subject));
        }
    }
    let sound = fs::read(&path).unwrap();
    let used = (0..sound.len()).filter(|&at| sound[at] != 0);
    let (mut refused, mut tried) = (0, 0);
    for at in used.step_by(211) {
        tried += 1;
        let mut damaged = sound.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, damaged).unwrap();
        let Ok(keys) = FileKeys::open(&path).await else {
            refused += 1;
            continue;
        };
        for (key, subject) in &expected {
            if let Ok(found) = keys.existing(subject).await {
                assert_eq!(found.as_ref(), Some(key), "{subject:?}, byte {at}");
            }
            if let Ok(found) = keys.find(&[key.id]).await {
                assert_eq!(found, std::slice::from_ref(key), "byte {at}");
            }
        }
    }
    assert!(refused > 0 && refused < tried, "{refused} of {tried}");
}

#[tokio::test]
async fn an_empty_file_is_a_damaged_one_and_no_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    fs::write(&path, "").unwrap();
    let refused = FileKeys::open(&path).await.unwrap_err().to_string();
    assert!(refused.contains("it is empty"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[tokio::test]
async fn keys_are_not_kept_in_the_directory_of_a_store_which_would_not_open_again() {
    let directory = tempfile::tempdir().unwrap();
    let open = || EmbeddedStore::open(directory.path(), LogOptions::default());
    let store = open().await.unwrap();
    let refused = FileKeys::open(directory.path().join("keys")).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("directory of a log"), "{refused}");
    store.close().await.unwrap();
    drop(store);
    open().await.unwrap();
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_and_no_subject_looks_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let (path, key) = with_key(&directory).await;
    let table = redb::TableDefinition::<&str, u64>::new("keys-2");
    let change = |made: bool| {
        let database = redb::Database::open(&path).unwrap();
        let write = database.begin_write().unwrap();
        match made {
            true => drop(write.open_table(table).unwrap()),
            false => assert!(write.delete_table(table).unwrap()),
        }
        write.commit().unwrap();
    };
    change(true);
    let refused = FileKeys::open(&path).await.unwrap_err();
    assert!(refused.to_string().contains("keys-2"), "{refused}");
    change(false);
    let keys = FileKeys::open(&path).await.unwrap();
    assert_eq!(keys.existing(&guest("g1")).await.unwrap(), Some(key));
}
