//! Rules of keeping snapshots.
//!
//! **Owns:** the rules of this group. **Does not know:** the store under test.

use std::sync::Arc;

use leftfold_model::{EventId, Position, Revision, StreamName};

use super::{Fixture, fixtures::stream};

use crate::{SavedSnapshot, SnapshotStore};

fn saved(revision: u64, program: u8) -> SavedSnapshot {
    SavedSnapshot {
        revision: Revision::new(revision),
        position: Position::new(revision + 1),
        last_event: EventId::fresh(),
        fingerprint: [program; 16],
        state: vec![program; 3_000].into(),
    }
}

async fn kept(fixture: &impl Fixture) -> (Arc<dyn SnapshotStore>, StreamName) {
    (fixture.open().await.snapshots(), stream("a-1"))
}

pub async fn a_snapshot_comes_back_as_it_was_kept_and_only_for_its_stream(fixture: &impl Fixture) {
    let (snapshots, stream_a) = kept(fixture).await;
    assert_eq!(snapshots.load(&stream_a).await.unwrap(), None);
    let five = saved(5, 1);
    snapshots.save(&stream_a, five.clone()).await.unwrap();
    assert_eq!(snapshots.load(&stream_a).await.unwrap(), Some(five));
    assert_eq!(snapshots.load(&stream("a-2")).await.unwrap(), None);
}

pub async fn of_one_program_the_newest_snapshot_stays(fixture: &impl Fixture) {
    let (snapshots, stream) = kept(fixture).await;
    let newest = saved(9, 1);
    for snapshot in [saved(5, 1), newest.clone(), saved(7, 1), saved(9, 1)] {
        snapshots.save(&stream, snapshot).await.unwrap();
    }
    assert_eq!(snapshots.load(&stream).await.unwrap(), Some(newest));
}

pub async fn a_snapshot_of_another_program_takes_the_place_of_any(fixture: &impl Fixture) {
    let (snapshots, stream) = kept(fixture).await;
    snapshots.save(&stream, saved(9, 1)).await.unwrap();
    let other = saved(2, 2);
    snapshots.save(&stream, other.clone()).await.unwrap();
    assert_eq!(snapshots.load(&stream).await.unwrap(), Some(other));
}

pub async fn a_removed_snapshot_is_gone_and_removing_none_is_no_error(fixture: &impl Fixture) {
    let (snapshots, stream) = kept(fixture).await;
    snapshots.remove(&stream).await.unwrap();
    snapshots.save(&stream, saved(1, 1)).await.unwrap();
    snapshots.remove(&stream).await.unwrap();
    assert_eq!(snapshots.load(&stream).await.unwrap(), None);
}
