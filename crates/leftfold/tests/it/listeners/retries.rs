//! What callers see of parked events and of their retries.
//!
//! **Owns:** tests of what a handle tells of them. **Does not know:** how they are stored.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use leftfold::{FollowError, Start, Store, model::Position};
use tokio::time::timeout;

use super::{caught_up, deposits, fine, parked, recorder, refused};

#[tokio::test]
async fn a_caller_that_waited_finds_its_event_parked_and_a_retry_returns_how_it_ended() {
    let store = Store::memory();
    let is_broken = Arc::new(AtomicBool::new(true));
    let broken = Arc::clone(&is_broken);
    let (follow, log) = recorder(&store, move |event| match broken.load(Ordering::Relaxed) {
        true => refused(),
        false => fine(event),
    });
    let listener = follow.from(Start::Beginning).spawn();
    let last = deposits(&store, ["ann", "ann", "bob"]).await;
    caught_up(&listener, last).await;
    assert_eq!(parked(&listener).await, [(1, 3), (2, 0), (3, 3)]);
    let first = Position::new(1);
    let retried = timeout(Duration::from_secs(60), listener.retry_and_wait(first)).await;
    let failed_again = retried.unwrap().unwrap().unwrap();
    assert_eq!((failed_again.position, failed_again.attempts), (first, 3));
    is_broken.store(false, Ordering::Relaxed);
    let retried = timeout(Duration::from_secs(60), listener.retry_and_wait(first)).await;
    assert_eq!(retried.unwrap().unwrap(), None);
    assert_eq!(parked(&listener).await, [(3, 3)]);
    assert_eq!(log.of("ann").len(), 2);
    let unknown = listener.retry_and_wait(first).await.unwrap_err();
    assert!(matches!(unknown, FollowError::Consumer(_)), "{unknown:?}");
    listener.stop().await.unwrap();
}
