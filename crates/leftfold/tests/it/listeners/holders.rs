//! Several holders of one listener: they take turns, and one that was killed or slept does no harm.
//!
//! **Owns:** the tests of claims and their loss. **Does not know:** retries and parking.

use std::{
    future::{pending, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use leftfold::{
    FollowError, ListenerState, Store, model::Position, stores::consumers::ConsumerName,
};
use tokio::time::{sleep, timeout};

use super::{caught_up, deposit, deposits, fine, recorder, until};

#[tokio::test]
async fn two_listeners_of_one_name_take_turns() {
    let store = Store::memory();
    let (follow, first_log) = recorder(&store, fine);
    let first = follow
        .holder("first")
        .lease(Duration::from_secs(60))
        .spawn();
    first.started().await.unwrap();
    let (follow, second_log) = recorder(&store, fine);
    let second = follow
        .holder("second")
        .lease(Duration::from_millis(100))
        .spawn();
    let last = deposit(&store, "ann").await;
    caught_up(&first, last).await;
    until("the second says for whom it waits", || async {
        let state = second.status().await.unwrap().state;
        matches!(state, ListenerState::Waiting { reason } if reason.contains("claimed by first"))
    })
    .await;
    first.stop().await.unwrap();
    let last = deposit(&store, "ann").await;
    caught_up(&second, last).await;
    assert_eq!(
        (first_log.of("ann"), second_log.of("ann")),
        (vec![0], vec![1])
    );
    second.stop().await.unwrap();
}

/// A process that is gone between the effect and the checkpoint: its runtime ends where it stands.
#[tokio::test]
async fn what_had_an_effect_without_a_checkpoint_is_handled_again_and_nothing_is_skipped() {
    let store = Store::memory();
    let last = deposits(&store, ["ann", "bob", "ann", "bob"]).await;
    // Dropping a handle would stop its listener in order, which a killed process does not.
    let mut handles = Vec::new();
    for killed_at in 1..=4 {
        let died = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (sender, receiver) = mpsc::channel();
        let (follow, log) = recorder(&store, move |event| {
            let hangs = event.position.get() == killed_at;
            sender.send(event.position.get()).unwrap();
            match hangs {
                true => Box::pin(pending()),
                false => Box::pin(ready(Ok(()))),
            }
        });
        let follow = follow.lease(Duration::from_millis(100));
        let listener = {
            let _entered = died.enter();
            follow.spawn()
        };
        let reached =
            tokio::task::spawn_blocking(move || while receiver.recv().unwrap() != killed_at {});
        timeout(Duration::from_secs(60), reached)
            .await
            .unwrap()
            .unwrap();
        died.shutdown_background();
        handles.push(listener);
        assert!(log.all().len() as u64 == killed_at - 1);
        let consumers = store.event_store().consumers();
        let name = ConsumerName::new("recorder").unwrap();
        let (follow, log) = recorder(&store, fine);
        let listener = follow.spawn();
        caught_up(&listener, last).await;
        let handled = log.all().len() as u64;
        assert!(
            (5 - killed_at..=4).contains(&handled),
            "killed at {killed_at}: {handled}"
        );
        listener.stop().await.unwrap();
        consumers.reset(&name, Position::START).await.unwrap();
    }
}

/// A process that stands still for longer than its lease, as after SIGSTOP, and wakes up behind its successor.
#[tokio::test]
async fn a_holder_that_slept_past_its_lease_handles_nothing_more() {
    let store = Store::memory();
    let last = deposits(&store, ["a", "b", "c"]).await;
    let (wake, asleep) = mpsc::channel::<()>();
    let (sender, receiver) = mpsc::channel();
    let asleep = Mutex::new(asleep);
    let (follow, slept_log) = recorder(&store, move |event| {
        // Blocks the only thread of its runtime, so that nothing is renewed.
        if event.position == Position::FIRST {
            sender.send(()).unwrap();
            asleep.lock().unwrap().recv().unwrap();
        }
        Box::pin(ready(Ok(())))
    });
    let follow = follow
        .holder("sleeper")
        .lease(Duration::from_millis(100))
        .parallel(8);
    let (handed, handle) = mpsc::channel();
    let sleeper = std::thread::Builder::new()
        .name("sleeper".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = follow.spawn();
                handed.send(()).unwrap();
                listener.ended().await
            })
        });
    tokio::task::spawn_blocking(move || (handle.recv().unwrap(), receiver.recv().unwrap()))
        .await
        .unwrap();

    let (follow, log) = recorder(&store, fine);
    let successor = follow.holder("successor").spawn();
    caught_up(&successor, last).await;
    wake.send(()).unwrap();
    // The sleeper wakes, finds its claim gone, and waits for its turn: what it handles from now on it may.
    until("the sleeper is behind", || async {
        !slept_log.all().is_empty()
    })
    .await;
    let late = deposit(&store, "a").await;
    caught_up(&successor, late).await;
    assert_eq!(log.all().len(), 4);
    assert_eq!(slept_log.all(), [("a".to_owned(), 0)]);
    store.close().await.unwrap();
    let ended = tokio::task::spawn_blocking(|| sleeper.unwrap().join().unwrap());
    let ended = timeout(Duration::from_secs(60), async {
        drop(successor);
        ended.await.unwrap()
    });
    let ended = ended.await.unwrap();
    assert!(
        matches!(ended, Some(FollowError::Closed { .. })),
        "{ended:?}"
    );
    assert_eq!(slept_log.all(), [("a".to_owned(), 0)]);
}

/// A handler that waits while others run begins behind a pause that nothing has noticed yet.
#[tokio::test]
async fn a_holder_that_slept_past_its_lease_begins_nothing_that_waited_for_its_turn() {
    let store = Store::memory();
    let last = deposits(&store, ["a", "b", "c"]).await;
    let (wake, asleep) = mpsc::channel::<()>();
    let (sender, receiver) = mpsc::channel();
    let asleep = Arc::new(Mutex::new(asleep));
    let begun = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&begun);
    let (follow, _) = recorder(&store, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        let (asleep, sender) = (Arc::clone(&asleep), sender.clone());
        Box::pin(async move {
            // The other two wait for the one slot when this thread, the only one of its runtime, stands still.
            sleep(Duration::from_millis(1)).await;
            sender.send(()).unwrap();
            asleep.lock().unwrap().recv().unwrap();
            Ok(())
        })
    });
    let follow = follow
        .holder("sleeper")
        .lease(Duration::from_millis(100))
        .parallel(1);
    let sleeper = std::thread::Builder::new().name("sleeper".into());
    let sleeper = sleeper.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { follow.spawn().ended().await })
    });
    let slept = tokio::task::spawn_blocking(move || receiver.recv().unwrap());
    slept.await.unwrap();

    let (follow, log) = recorder(&store, fine);
    let successor = follow.holder("successor").spawn();
    caught_up(&successor, last).await;
    assert_eq!(log.all().len(), 3);
    wake.send(()).unwrap();
    store.close().await.unwrap();
    drop(successor);
    let ended = tokio::task::spawn_blocking(|| sleeper.unwrap().join().unwrap());
    let ended = timeout(Duration::from_secs(60), ended).await;
    assert!(matches!(
        ended.unwrap().unwrap(),
        Some(FollowError::Closed { .. })
    ));
    assert_eq!(begun.load(Ordering::Relaxed), 1);
}
