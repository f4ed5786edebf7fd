//! Rules of a storage that goes back to an earlier state, as when a backup is put back.
//!
//! **Owns:** the rules of this group, [`RestorableFixture`] and [`Restorable`]. **Does not know:** how a storage is restored.
//! A store in memory cannot be. **Invariants:** each backup has three events, and each restore takes four away.

use std::{future::Future, sync::Arc};

use futures_util::StreamExt;
use leftfold_model::{
    Append, Conflict,
    ExpectedRevision::{self, Any},
    Position, Read, Revision,
};

use super::fixtures::{Store, conflict, events, exact, ok, read, to, within};
use crate::{EventStore, ReadError, Subscription};

/// Gives the rules of this group stores that can be restored.
pub trait RestorableFixture: Send + Sync {
    /// A fresh, empty store.
    fn open(&self) -> impl Future<Output = impl Restorable> + Send;
}

/// A store and its storage.
pub trait Restorable: Send {
    /// Returns the store. After [`Self::restore`] it is the one that programs use then: where the storage is another process, the
    /// store that was open all the time.
    fn store(&self) -> Arc<dyn EventStore>;

    /// Copies the storage.
    fn back_up(&mut self) -> impl Future<Output = ()> + Send;

    /// Puts the copy in the place of the storage. Where the storage allows it, subscriptions stay open meanwhile.
    fn restore(&mut self) -> impl Future<Output = ()> + Send;
}

const BACKED_UP: u64 = 3;
const LOST: u64 = 4;

fn some(count: u64, expected: ExpectedRevision) -> Append {
    to("a", expected, events(usize::try_from(count).unwrap()))
}

/// Appends, backs up, and appends what the restore will take away; returns the last append.
async fn prepare(restorable: &mut impl Restorable) -> Append {
    ok(restorable.store().append(some(BACKED_UP, Any)).await);
    restorable.back_up().await;
    let lost = some(LOST, Any);
    ok(restorable.store().append(lost.clone()).await);
    lost
}

fn assert_names_both(refused: &ReadError) {
    assert!(matches!(refused, ReadError::Invalid { .. }), "{refused:?}");
    let message = format!("{refused:?} {refused}");
    let (known, head) = ((BACKED_UP + LOST).to_string(), BACKED_UP.to_string());
    assert!(
        message.contains(&known) && message.contains(&head),
        "{message}"
    );
}

pub async fn an_open_subscription_ends_after_a_restore_and_delivers_no_position_twice(
    fixture: &impl RestorableFixture,
) {
    let mut restorable = fixture.open().await;
    prepare(&mut restorable).await;
    let mut deliveries = restorable
        .store()
        .subscribe(Subscription::after(Position::START));
    let mut through = Position::START;
    while through < Position::new(BACKED_UP + LOST) {
        let delivery = within(deliveries.next()).await;
        through = delivery.expect("an answer").expect("a delivery").through;
    }
    restorable.restore().await;
    ok(restorable.store().append(some(1, Any)).await);
    // A store that its storage outlives was closed; another says what it found.
    match within(deliveries.next()).await {
        None => {}
        Some(Ok(delivery)) => panic!("delivered after {through}: {delivery:?}"),
        Some(Err(refused)) => assert!(matches!(refused, ReadError::Invalid { .. }), "{refused:?}"),
    }
}

pub async fn a_checkpoint_behind_the_restored_head_is_refused_by_both_positions(
    fixture: &impl RestorableFixture,
) {
    let mut restorable = fixture.open().await;
    prepare(&mut restorable).await;
    restorable.restore().await;
    let checkpoint = Subscription::after(Position::new(BACKED_UP + LOST));
    let mut deliveries = restorable.store().subscribe(checkpoint);
    let answer = within(deliveries.next()).await.expect("an answer");
    assert_names_both(&answer.expect_err("an error"));
}

pub async fn a_checkpoint_that_the_restored_log_has_goes_on(fixture: &impl RestorableFixture) {
    let mut restorable = fixture.open().await;
    prepare(&mut restorable).await;
    restorable.restore().await;
    let store = restorable.store();
    let mut deliveries = store.subscribe(Subscription::after(Position::new(BACKED_UP)));
    ok(store.append(some(1, Any)).await);
    let mut seen = Vec::new();
    while seen.is_empty() {
        let delivery = within(deliveries.next()).await.expect("an answer");
        seen.extend(delivery.expect("a delivery").events);
    }
    assert_eq!(seen[0].position, Position::new(BACKED_UP + 1));
    assert_eq!(seen[0].revision, Revision::new(BACKED_UP));
}

pub async fn an_append_that_the_restore_took_away_is_stored_again(
    fixture: &impl RestorableFixture,
) {
    let mut restorable = fixture.open().await;
    let lost = prepare(&mut restorable).await;
    restorable.restore().await;
    let store: Store = restorable.store();
    let again = ok(store.append(lost.clone()).await);
    assert!(!again.repeated, "{again:?}");
    assert_eq!(again.first, Position::new(BACKED_UP + 1));
    assert_eq!(
        read(&store, Read::all()).await.len() as u64,
        BACKED_UP + LOST
    );
    assert!(ok(store.append(lost).await).repeated);
}

pub async fn a_revision_that_the_restore_took_away_no_longer_holds(
    fixture: &impl RestorableFixture,
) {
    let mut restorable = fixture.open().await;
    prepare(&mut restorable).await;
    restorable.restore().await;
    let store: Store = restorable.store();
    let refused = store.append(some(1, exact(BACKED_UP + LOST - 1))).await;
    let Conflict::WrongRevision { actual, .. } = conflict(refused) else {
        panic!("another conflict");
    };
    assert_eq!(actual.0, Some(Revision::new(BACKED_UP - 1)));
    ok(store.append(some(1, exact(BACKED_UP - 1))).await);
}
