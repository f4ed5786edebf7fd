//! Appends that are larger than a document of the server.

use futures_util::TryStreamExt;
use leftfold_model::{
    Append, ContentType, EventType, ExpectedRevision, NewEvent, Read, Revision, StreamName, Tag,
};
use leftfold_mongodb::MongoStore;
use leftfold_store::{AppendError, EventStore, Scavenge, StreamMetadata};

use crate::server::fresh;

async fn read_all(store: &MongoStore) -> Vec<leftfold_model::RecordedEvent> {
    let batches: Vec<_> = store.read(Read::all()).try_collect().await.unwrap();
    batches.into_iter().flat_map(|batch| batch.events).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_of_twenty_mebibytes_is_one_commit() {
    let store = MongoStore::open_with(fresh()).await.unwrap();
    let events: Vec<_> = (0..30_u32)
        .map(|number| {
            let data = number.to_le_bytes().repeat(179_200);
            NewEvent::new(EventType::new("T").unwrap(), ContentType::Binary, data)
        })
        .collect();
    let append = Append::to(
        StreamName::new("large").unwrap(),
        ExpectedRevision::NoStream,
        events.clone(),
    );
    store.append(append.unwrap()).await.unwrap();
    let stored = read_all(&store).await;
    assert_eq!(stored.len(), events.len());
    assert!(
        stored
            .iter()
            .zip(&events)
            .all(|(stored, event)| stored.data == event.data())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_document_can_hold_are_refused_with_the_limit() {
    let store = MongoStore::open_with(fresh()).await.unwrap();
    let tags = (0..64).map(|number| Tag::new(format!("{number:0>255}")).unwrap());
    let event = NewEvent::json(EventType::new("T").unwrap(), "{}")
        .with_tags(tags)
        .unwrap();
    let events = (0..1_000).map(|_| event.clone().with_id(leftfold_model::EventId::fresh()));
    let append = Append::to(
        StreamName::new("names").unwrap(),
        ExpectedRevision::Any,
        events.collect(),
    );
    let error = store.append(append.unwrap()).await.unwrap_err();
    assert!(
        matches!(&error, AppendError::Invalid { reason } if reason.contains("15728640")),
        "{error}"
    );
    assert_eq!(read_all(&store).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scavenge_removes_payloads_that_were_kept_apart() {
    let store = MongoStore::open_with(fresh()).await.unwrap();
    let stream = StreamName::new("a").unwrap();
    let event = |size| {
        NewEvent::new(
            EventType::new("T").unwrap(),
            ContentType::Binary,
            vec![7; size],
        )
    };
    let events = vec![event(9 * 1024 * 1024), event(1)];
    let append = Append::to(stream.clone(), ExpectedRevision::Any, events);
    store.append(append.unwrap()).await.unwrap();
    let metadata = StreamMetadata::default().with_truncate_before(Revision::new(1));
    store
        .append(metadata.append_for(&stream, ExpectedRevision::Any).unwrap())
        .await
        .unwrap();
    let progress: Vec<_> = store
        .scavenge(Scavenge::default())
        .try_collect()
        .await
        .unwrap();
    let last = progress.last().unwrap();
    assert!(
        last.finished && last.events == 1 && last.bytes == 9 * 1024 * 1024,
        "{last:?}"
    );
    let stored = read_all(&store).await;
    assert_eq!(stored.first().unwrap().data.len(), 1);
    // Another run finds nothing left to do.
    let progress: Vec<_> = store
        .scavenge(Scavenge::default())
        .try_collect()
        .await
        .unwrap();
    assert_eq!(progress.last().unwrap().events, 0);
}
