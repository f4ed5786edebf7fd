//! What reads, subscriptions and listings leave out, compared with a model.
//!
//! **Owns:** the model. **Does not know:** how events are left out.

use std::collections::BTreeSet;

use leftfold_model::{Category, RecordedEvent};

use super::*;

/// A store with events all over, and the positions that each principal may see.
async fn mixed(seed: u64) -> (Arc<dyn EventStore>, Arc<AccessControl>, Vec<RecordedEvent>) {
    let (store, access) = listed().await;
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..400 {
        let stream = STREAMS[rng.usize(..STREAMS.len() - 1)];
        let tag = rng.bool().then(|| TAGS[rng.usize(..TAGS.len())]);
        store.append(append(stream, tag)).await.unwrap();
    }
    let batches: Vec<_> = store.read(Read::all()).try_collect().await.unwrap();
    let all = batches.into_iter().flat_map(|batch| batch.events).collect();
    (store, access, all)
}

fn model_sees(who: &str, event: &RecordedEvent) -> bool {
    let stream = event.stream.as_str();
    let by_tag = who == "tenant" && event.tags.iter().any(|tag| tag.as_str() == "tenant:1");
    match stream.strip_prefix("$$") {
        Some(described) => expected(who, described).contains('m'),
        None => expected(who, stream).contains('r') || by_tag,
    }
}

async fn positions(store: &dyn EventStore, read: Read) -> Vec<u64> {
    let batches: Vec<_> = store.read(read).try_collect().await.unwrap();
    let tokens: BTreeSet<_> = batches
        .iter()
        .map(|batch| batch.token.seen_through())
        .collect();
    assert_eq!(tokens.len(), 1, "one token for all batches of a read");
    let events = batches.into_iter().flat_map(|batch| batch.events);
    events.map(|event| event.position.get()).collect()
}

/// The positions that a subscription delivers until it has caught up.
async fn delivered(store: &dyn EventStore) -> Vec<u64> {
    let mut deliveries = store.subscribe(Subscription::default());
    let mut delivered = Vec::new();
    while let Some(delivery) = deliveries.try_next().await.unwrap() {
        delivered.extend(delivery.events.iter().map(|event| event.position.get()));
        if delivery.caught_up {
            break;
        }
    }
    delivered
}

/// The names of all streams that are listed.
async fn names(store: &dyn EventStore) -> Vec<String> {
    let pages: Vec<_> = store
        .streams(ListStreams::default())
        .try_collect()
        .await
        .unwrap();
    let streams = pages.into_iter().flatten();
    streams.map(|info| info.stream.to_string()).collect()
}

#[tokio::test]
async fn reads_of_several_streams_give_what_the_model_says_within_their_limits() {
    let seed = std::env::var("LEFTFOLD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("LEFTFOLD_SEED={seed}");
    let (_, access, all) = mixed(seed).await;
    for (who, principal) in principals(&access) {
        let guarded = access.guard(principal.clone());
        let is_current = access.directory.read().is_current(&principal);
        if principal == Principal::Anonymous || !is_current {
            let denied: Result<Vec<_>, _> = guarded.read(Read::all()).try_collect().await;
            assert!(
                matches!(denied, Err(ReadError::AccessDenied { .. })),
                "{denied:?}"
            );
            continue;
        }
        let sees = |event: &&RecordedEvent| model_sees(who, event);
        let visible: Vec<u64> = all
            .iter()
            .filter(sees)
            .map(|event| event.position.get())
            .collect();
        assert_eq!(positions(&*guarded, Read::all()).await, visible, "{who}");
        for limit in [0, 1, 2, 63, 150, 1_000] {
            let wanted: Vec<_> = visible.iter().copied().take(limit).collect();
            let read = Read::all().limit(limit as u64);
            assert_eq!(
                positions(&*guarded, read).await,
                wanted,
                "{who}, limit {limit}"
            );
            let wanted: Vec<_> = visible.iter().rev().copied().take(limit).collect();
            let read = Read::all().backwards().limit(limit as u64);
            assert_eq!(
                positions(&*guarded, read).await,
                wanted,
                "{who}, backwards, limit {limit}"
            );
        }
        let orders = Read::category(Category::new("order").unwrap());
        let of_orders =
            |event: &&RecordedEvent| sees(event) && event.stream.category_str() == "order";
        let wanted: Vec<u64> = all
            .iter()
            .filter(of_orders)
            .map(|event| event.position.get())
            .collect();
        assert_eq!(positions(&*guarded, orders).await, wanted, "{who}");
        assert_eq!(delivered(&*guarded).await, visible, "{who} subscribes");
        let listed = names(&*guarded).await;
        for stream in STREAMS.iter().filter(|stream| **stream != "$settings") {
            let shown = listed.iter().any(|listed| listed == stream);
            assert_eq!(
                shown,
                expected(who, stream).contains('r'),
                "{who} lists {stream}"
            );
        }
    }
}

#[tokio::test]
async fn of_several_lists_of_rights_in_one_append_the_last_counts_at_once() {
    let (_, access) = listed().await;
    let ann = access.guard(user(&access, "ann", &["$admins"]));
    let bob = access.guard(user(&access, "bob", &[]));
    let list = |readers: &str| {
        let metadata = StreamMetadata::default().with_property("$acl", json!({"$r": readers}));
        let append = metadata.append_for(&name("order-1"), ExpectedRevision::Any);
        append.unwrap().into_parts().0
    };
    let between = append("order-2", None).into_parts().0;
    let writes = [list("$all"), between, list("keepers")].concat();
    ann.append(Append::new(writes, Vec::new()).unwrap())
        .await
        .unwrap();
    let read: Result<Vec<_>, _> = bob.read(Read::stream(name("order-1"))).try_collect().await;
    assert!(
        matches!(read, Err(ReadError::AccessDenied { .. })),
        "{read:?}"
    );
}
