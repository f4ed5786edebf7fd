//! What the tests of every store of keys cannot do: full disks, other processes, links.
//!
//! **Owns:** tests of the file. **Does not know:** what keys seal.

use super::*;
use crate::full_disk::testing::{self, Refuses};

fn guest(n: u32) -> Subject {
    Subject {
        tenant: String::new(),
        kind: "guest".to_owned(),
        id: format!("g{n}"),
    }
}

#[tokio::test]
async fn a_disk_that_was_full_has_room_again_and_keys_are_created_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let keys = FileKeys::open(&path).await.unwrap();
    let first = keys.key(&guest(0)).await.unwrap();
    drop(keys);
    let is_full = Arc::new(AtomicBool::new(false));
    let file = open_private(&path, false).unwrap();
    let id = id_of(&file.metadata().unwrap());
    let database = testing::open(file, &is_full, Refuses::Writes);
    let keys = FileKeys::over(path.clone(), OpenFile { database, id });
    is_full.store(true, Ordering::SeqCst);
    let refused = keys.key(&guest(1)).await.unwrap_err();
    assert!(matches!(refused, KeyError::DiskFull { .. }), "{refused}");
    is_full.store(false, Ordering::SeqCst);
    let second = keys.key(&guest(1)).await.unwrap();
    assert_eq!(keys.existing(&guest(0)).await.unwrap(), Some(first));
    drop(keys);
    let keys = FileKeys::open(&path).await.unwrap();
    assert_eq!(keys.existing(&guest(1)).await.unwrap(), Some(second));
}

#[tokio::test]
async fn a_file_that_was_made_and_closed_meanwhile_is_not_emptied() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let guest = guest(0);
    // Opened, as by a process that goes on late.
    let late = open_private(&unfinished(&path), true).unwrap();
    let keys = FileKeys::open(&path).await.unwrap();
    let key = keys.key(&guest).await.unwrap();
    drop(keys);
    assert!(make_in(late, &path).is_err());
    let keys = FileKeys::open(&path).await.unwrap();
    assert_eq!(keys.existing(&guest).await.unwrap(), Some(key));
}

#[tokio::test]
async fn a_disk_that_was_full_at_a_sync_gives_no_key_that_it_may_not_hold() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let guest = guest(0);
    drop(FileKeys::open(&path).await.unwrap());
    let is_full = Arc::new(AtomicBool::new(false));
    let file = open_private(&path, false).unwrap();
    let id = id_of(&file.metadata().unwrap());
    let database = testing::open(file, &is_full, Refuses::Syncs);
    let keys = FileKeys::over(path.clone(), OpenFile { database, id });
    is_full.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let refused = keys.key(&guest).await.unwrap_err();
        assert!(matches!(refused, KeyError::Unavailable { .. }), "{refused}");
        is_full.store(false, Ordering::SeqCst);
    }
    assert_eq!(keys.existing(&guest).await.unwrap(), None);
}

/// Leaves what a process leaves that is killed while it destroys a key; a link to it tells what becomes of its content.
fn leave_replacement(path: &Path, link: &Path) {
    std::fs::copy(path, replacement(path)).unwrap();
    std::fs::hard_link(replacement(path), link).unwrap();
}

fn holds(file: &Path, key: &SubjectKey) -> bool {
    let bytes = std::fs::read(file).unwrap();
    bytes.windows(key.secret.len()).any(|at| at == key.secret)
}

#[tokio::test]
async fn what_was_left_of_a_file_without_a_key_is_overwritten_because_it_holds_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    let keys = FileKeys::open(&path).await.unwrap();
    let key = keys.key(&guest(0)).await.unwrap();
    drop(keys);
    let (opened, destroyed) = (path.with_file_name("1"), path.with_file_name("2"));
    leave_replacement(&path, &opened);
    assert!(holds(&opened, &key));
    let keys = FileKeys::open(&path).await.unwrap();
    leave_replacement(&path, &destroyed);
    keys.destroy(&guest(0)).await.unwrap();
    assert!(!replacement(&path).exists());
    assert!(!holds(&opened, &key));
    assert!(!holds(&destroyed, &key));
}

#[tokio::test]
async fn a_file_without_a_key_that_could_not_be_made_keeps_no_space() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    drop(FileKeys::open(&path).await.unwrap());
    let file = open_sound(&path).unwrap();
    add(&file.database, &guest(0), &SubjectKey::random().unwrap()).unwrap();
    // A subject whose table is not there ends the copying, as a full disk does.
    let write = file.database.begin_write().unwrap();
    write.delete_table(KEYS).unwrap();
    write.commit().unwrap();
    assert!(copy_without(&file.database, &guest(1), &replacement(&path)).is_err());
    assert!(!replacement(&path).exists());
}

#[cfg(unix)]
#[expect(
    clippy::disallowed_methods,
    reason = "what operators and ended processes do with files"
)]
#[tokio::test]
async fn a_link_to_the_file_stays_one_and_the_file_stays_where_it_is() {
    let (named, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let link = named.path().join("keys");
    std::os::unix::fs::symlink(volume.path().join("keys"), &link).unwrap();
    // As of a volume that is not mounted.
    let refused = FileKeys::open(&link).await.unwrap_err();
    assert!(refused.to_string().contains("leads nowhere"), "{refused}");
    assert_eq!(std::fs::read_dir(volume.path()).unwrap().count(), 0);
    drop(FileKeys::open(volume.path().join("keys")).await.unwrap());
    let keys = FileKeys::open(&link).await.unwrap();
    let kept = keys.key(&guest(0)).await.unwrap();
    keys.key(&guest(1)).await.unwrap();
    keys.destroy(&guest(1)).await.unwrap();
    drop(keys);
    // A process that ended within `destroy` left this.
    let file = volume.path().join("keys");
    std::fs::rename(&file, replaced(&file)).unwrap();
    let keys = FileKeys::open(&link).await.unwrap();
    assert_eq!(keys.existing(&guest(0)).await.unwrap(), Some(kept));
    assert_eq!(keys.existing(&guest(1)).await.unwrap(), None);
    for (directory, is_link) in [(&named, true), (&volume, false)] {
        let entries: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(entries.len(), 1, "{entries:?}");
        let kind = entries[0].as_ref().unwrap().file_type().unwrap();
        assert_eq!(kind.is_symlink(), is_link);
    }
}
