//! The file of consumers: what survives, who may read it, and damage.
//!
//! **Owns:** tests of what only the file does. **Does not know:** the contract's rules, which the conformance suite has.

use super::*;
use crate::full_disk::testing::{self, Refuses};

fn name() -> ConsumerName {
    ConsumerName::new("mailer").unwrap()
}

fn request() -> ClaimRequest {
    ClaimRequest::new(name(), "one", Duration::from_secs(60))
}

fn parked(position: u64) -> ConsumerChange {
    ConsumerChange::Park(ParkedEvent {
        position: Position::new(position),
        key: format!("key-{position}"),
        reason: "smtp: refused".into(),
        attempts: 5,
        time: Timestamp::from_micros(position),
        resolution: None,
    })
}

fn timer(id: &str, due: u64) -> ConsumerChange {
    ConsumerChange::SetTimer(Timer {
        id: id.into(),
        due: Timestamp::from_micros(due),
        data: id.to_owned().into(),
    })
}

/// Everything that can be asked about the consumer.
async fn everything(kept: &FileConsumers) -> Result<String, ConsumerError> {
    let name = name();
    let status = kept.status(&name).await?;
    let parked = kept.parked(&name, &ListParked::default()).await?;
    let due = kept
        .due_timers(&name, Timestamp::from_micros(u64::MAX), 9)
        .await?;
    let listed = kept.list(None).await?;
    let text = |status: ConsumerStatus| {
        format!(
            "{:?}",
            ConsumerStatus {
                holder: None,
                ..status
            }
        )
    };
    let status: Vec<_> = status.into_iter().chain(listed).map(text).collect();
    Ok(format!("{status:?} {parked:?} {due:?}"))
}

async fn filled(path: &Path) -> String {
    let kept = FileConsumers::at(path.to_owned(), Handle::current());
    let mut claim = kept.claim(&request()).await.unwrap();
    let changes = vec![parked(3), parked(7), timer("b", 20), timer("a", 10)];
    kept.advance(&mut claim, Position::new(9), changes)
        .await
        .unwrap();
    kept.resolve(&name(), Position::new(7), Resolution::Skip)
        .await
        .unwrap();
    let before = everything(&kept).await.unwrap();
    kept.close();
    before
}

#[tokio::test]
async fn everything_but_the_claim_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("consumers");
    let before = filled(&path).await;
    let kept = FileConsumers::at(path, Handle::current());
    assert_eq!(everything(&kept).await.unwrap(), before);
    // Its holder is gone with the process that gave the claim, so another need not wait.
    let other = ClaimRequest {
        holder: "two".into(),
        ..request()
    };
    let claim = kept.claim(&other).await.unwrap();
    assert_eq!((claim.term, claim.position), (2, Position::new(9)));
}

#[tokio::test]
async fn a_read_makes_no_file_and_a_closed_file_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("consumers");
    let kept = FileConsumers::at(path.clone(), Handle::current());
    assert_eq!(kept.status(&name()).await.unwrap(), None);
    assert!(kept.list(None).await.unwrap().is_empty());
    assert!(!path.exists());
    kept.close();
    let refused = kept.claim(&request()).await.unwrap_err();
    assert!(
        matches!(refused, ConsumerError::Unavailable { .. }),
        "{refused}"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("consumers");
    filled(&path).await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_file_that_is_no_file_of_consumers_is_named_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("consumers");
    let text = b"not a database at all, and rather short".to_vec();
    std::fs::write(&path, &text).unwrap();
    let kept = FileConsumers::at(path.clone(), Handle::current());
    let refused = kept.claim(&request()).await.unwrap_err();
    assert!(
        matches!(refused, ConsumerError::Damaged { .. }),
        "{refused:?}"
    );
    assert!(
        refused.to_string().contains(&path.display().to_string()),
        "{refused}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), text);
}

/// Flips a bit in every 509th byte, one copy of the file each: the answer is the right one, or an error.
#[tokio::test]
async fn a_flipped_bit_never_gives_a_wrong_answer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("consumers");
    let before = filled(&path).await;
    let sound = std::fs::read(&path).unwrap();
    let (mut right, mut refused) = (0, 0);
    for at in (0..sound.len()).step_by(509 * 8) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        let copy = directory.path().join(format!("flipped-{at}"));
        std::fs::write(&copy, bytes).unwrap();
        let kept = FileConsumers::at(copy, Handle::current());
        match everything(&kept).await {
            Ok(after) => {
                assert_eq!(after, before, "byte {at}");
                right += 1;
            }
            Err(_) => refused += 1,
        }
    }
    println!("{right} right, {refused} refused, of {} bytes", sound.len());
    assert!(right > 0);
}

/// Who finds the file finds it whole, so a process may be killed at any moment while it is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_is_never_seen_half_made_and_what_was_left_of_an_earlier_one_is_replaced() {
    for _ in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("consumers");
        std::fs::write(path.with_extension("tmp"), [0; 5_000]).unwrap();
        let (done, making) = std::sync::mpsc::channel::<()>();
        let seen = path.clone();
        let watching = std::thread::Builder::new().name("watching".into());
        let watching = watching.spawn(move || {
            while making.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                if let Ok(bytes) = std::fs::read(&seen) {
                    assert_eq!(bytes.get(..4), Some(&b"redb"[..]), "{} bytes", bytes.len());
                }
            }
        });
        let kept = FileConsumers::at(path.clone(), Handle::current());
        kept.claim(&request()).await.unwrap();
        done.send(()).unwrap();
        watching.unwrap().join().unwrap();
        assert!(!path.with_extension("tmp").exists());
    }
}

/// Opens the consumers of a file on a disk that refuses this while it is said to be full.
fn on_disk(path: &Path, refuses: Refuses) -> (FileConsumers, Arc<std::sync::atomic::AtomicBool>) {
    let is_full = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let kept = FileConsumers::at(path.to_owned(), Handle::current());
    let file = open_private(path, false).unwrap();
    kept.shared.lock().file = File::Open(testing::open(file, &is_full, refuses));
    (kept, is_full)
}

#[tokio::test]
async fn a_disk_that_was_full_has_room_again_and_consumers_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("consumers");
    let before = filled(&path).await;
    let (kept, is_full) = on_disk(&path, Refuses::Writes);
    let mut claim = kept.claim(&request()).await.unwrap();
    is_full.store(true, std::sync::atomic::Ordering::SeqCst);
    let refused = kept.advance(&mut claim, Position::new(10), Vec::new());
    let refused = refused.await.unwrap_err();
    assert!(
        matches!(refused, ConsumerError::Unavailable { .. }),
        "{refused:?}"
    );
    is_full.store(false, std::sync::atomic::Ordering::SeqCst);
    assert!(!before.is_empty());
    let advanced = kept.advance(&mut claim, Position::new(10), vec![parked(10)]);
    advanced.await.unwrap();
    let all = kept.parked(&name(), &ListParked::default()).await.unwrap();
    assert_eq!(all.len(), 3);
}

#[tokio::test]
async fn a_disk_that_was_full_at_a_sync_has_nothing_acknowledged_that_it_may_not_hold() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("consumers");
    filled(&path).await;
    let (kept, is_full) = on_disk(&path, Refuses::Syncs);
    let mut claim = kept.claim(&request()).await.unwrap();
    let before = claim.position;
    is_full.store(true, std::sync::atomic::Ordering::SeqCst);
    for _ in 0..2 {
        let refused = kept.advance(&mut claim, Position::new(10), Vec::new());
        let refused = refused.await.unwrap_err();
        assert!(
            matches!(refused, ConsumerError::Unavailable { .. }),
            "{refused:?}"
        );
        is_full.store(false, std::sync::atomic::Ordering::SeqCst);
    }
    let status = kept.status(&name()).await.unwrap().unwrap();
    assert_eq!(status.position, before);
}

#[tokio::test]
async fn an_empty_file_is_a_damaged_one_and_no_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("consumers");
    std::fs::write(&path, "").unwrap();
    let kept = FileConsumers::at(path.clone(), Handle::current());
    for refused in [
        kept.status(&name()).await.err(),
        kept.claim(&request()).await.err(),
    ] {
        assert!(
            matches!(refused, Some(ConsumerError::Damaged { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
}

#[cfg(unix)]
#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "the test moves a file as an operator does"
)]
async fn a_link_that_leads_nowhere_now_is_no_absent_file_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let (path, elsewhere) = (
        directory.path().join("consumers"),
        directory.path().join("volume"),
    );
    let before = filled(&path).await;
    std::fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    let away = directory.path().join("unmounted");
    std::fs::rename(&elsewhere, &away).unwrap();
    let kept = FileConsumers::at(path.clone(), Handle::current());
    let read = kept.status(&name()).await;
    assert!(
        matches!(read, Err(ConsumerError::Unavailable { .. })),
        "{read:?}"
    );
    let claimed = kept.claim(&request()).await;
    assert!(
        matches!(claimed, Err(ConsumerError::Unavailable { .. })),
        "{claimed:?}"
    );
    assert!(path.is_symlink() && !elsewhere.exists());
    std::fs::rename(&away, &elsewhere).unwrap();
    assert_eq!(everything(&kept).await.unwrap(), before);
}

#[test]
fn a_file_that_could_not_be_made_keeps_no_space() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("consumers");
    // Nothing can be renamed to this name.
    std::fs::create_dir_all(path.join("x")).unwrap();
    assert!(make(&path).is_err());
    let names = std::fs::read_dir(directory.path()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["consumers"]);
}

#[tokio::test]
async fn damage_that_the_library_returns_as_an_error_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("consumers");
    let kept = FileConsumers::at(path, Handle::current());
    let corrupted = || unavailable(redb::StorageError::Corrupted("a page".to_owned()));
    let failed: Result<(), _> = kept.blocking(move |_| Err(corrupted())).await;
    let Err(ConsumerError::Damaged { detail, .. }) = failed else {
        panic!("{failed:?}")
    };
    assert!(detail.contains("consumers"), "{detail}");
}

#[tokio::test]
async fn a_file_with_tables_of_a_newer_version_is_refused_and_not_taken_for_one_without_consumers()
{
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("consumers");
    let expected = filled(&path).await;
    let table = redb::TableDefinition::<&str, u64>::new("consumers-2");
    let change = |make: bool| {
        let database = Database::open(&path).unwrap();
        let write = database.begin_write().unwrap();
        match make {
            true => drop(write.open_table(table).unwrap()),
            false => assert!(write.delete_table(table).unwrap()),
        }
        write.commit().unwrap();
    };
    change(true);
    let kept = FileConsumers::at(path.clone(), Handle::current());
    let copy = FileConsumers::read_only(path.clone(), Handle::current());
    let claimed = kept.claim(&request()).await.map(drop);
    let read = everything(&copy).await.map(drop);
    for refused in [claimed, read] {
        let Err(ConsumerError::Unavailable { cause }) = refused else {
            panic!("{refused:?}")
        };
        let newer = cause.downcast_ref::<StorageError>();
        let newer = matches!(newer, Some(StorageError::NewerFormat { found: 2, .. }));
        assert!(newer, "{cause}");
    }
    change(false);
    assert_eq!(everything(&kept).await.unwrap(), expected);
}
