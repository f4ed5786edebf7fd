//! A listener over any store: what it parks, and where it goes on after its process ended.
//!
//! **Owns:** the one story that every kind of store has to tell alike. **Does not know:** which store it is.

use std::{future::ready, pin::Pin};

use leftfold::{Store, model::Position};

use crate::listeners::{caught_up, deposits, fine, parked, recorder, refused, until};

/// Opens a store once more, as another process would.
pub(crate) type Open<'a> = &'a (dyn Fn() -> Pin<Box<dyn Future<Output = Store>>> + Sync);

/// A listener parks the key of an event that fails, passes over it on request, and goes on behind its checkpoint.
pub(crate) async fn a_listener_parks_resumes_and_goes_on_where_it_was(open: Open<'_>) {
    let store = open().await;
    let last = deposits(&store, ["ann", "bad", "bad", "bob"]).await;
    let (follow, log) = recorder(&store, |event| match event.aggregate_id() {
        "bad" if event.revision.get() == 0 => refused(),
        _ => Box::pin(ready(Ok(()))),
    });
    let listener = follow.spawn();
    caught_up(&listener, last).await;
    assert_eq!((log.of("ann").len(), log.of("bad").len()), (1, 0));
    until("both are parked", || async {
        parked(&listener).await.len() == 2
    })
    .await;
    let all = listener.parked(Position::START).await.unwrap();
    assert_eq!(
        (all[0].attempts, all[0].reason.as_str(), all[1].attempts),
        (3, "the mail server refused", 0)
    );
    listener.skip(all[0].position).await.unwrap();
    until("nothing is parked", || async {
        parked(&listener).await.is_empty()
    })
    .await;
    assert_eq!(log.of("bad"), [1]);
    listener.stop().await.unwrap();
    store.close().await.unwrap();

    let store = open().await;
    let (follow, log) = recorder(&store, fine);
    let listener = follow.spawn();
    let last = deposits(&store, ["ann", "bad"]).await;
    caught_up(&listener, last).await;
    assert_eq!((log.of("ann"), log.of("bad")), (vec![1], vec![2]));
    assert_eq!(log.all().len(), 2);
    listener.stop().await.unwrap();
    store.close().await.unwrap();
}
