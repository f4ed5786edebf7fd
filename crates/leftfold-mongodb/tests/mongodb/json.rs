//! JSON data as sub-documents, for people who query with MongoDB's own tools.

use futures_util::TryStreamExt;
use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, Read, StreamName};
use leftfold_mongodb::MongoStore;
use leftfold_store::{Delete, EventStore, Scavenge};
use mongodb::{
    Client,
    bson::{Document, doc},
};

use crate::server::{address, fresh};

async fn append(store: &MongoStore, stream: &str, data: &'static str) {
    let event = NewEvent::json(EventType::new("Paid").unwrap(), data);
    let stream = StreamName::new(stream).unwrap();
    let append = Append::to(stream, ExpectedRevision::Any, vec![event]).unwrap();
    store.append(append).await.unwrap();
}

#[tokio::test]
async fn json_data_is_found_by_queries_of_other_tools() {
    let options = fresh().with_json_documents();
    let client = Client::with_uri_str(address()).await.unwrap();
    let commits = client
        .database(options.database())
        .collection::<Document>("commits");
    let store = MongoStore::open_with(options).await.unwrap();
    append(&store, "a", r#"{"amount": 250, "to": {"city": "Bonn"}}"#).await;
    append(&store, "b", r#"{"amount": 10, "to": {"city": "Kiel"}}"#).await;
    // A key that no field may have: the data is stored all the same.
    append(&store, "b", r#"{"a.b": 250}"#).await;
    let count = |filter: Document| commits.count_documents(filter).into_future();
    let large = doc! { "events.json.amount": { "$gt": 100 } };
    assert_eq!(count(large).await.unwrap(), 1);
    let in_kiel = doc! { "events.json.to.city": "Kiel" };
    assert_eq!(count(in_kiel.clone()).await.unwrap(), 1);

    // What is read is the data, to the letter, and the store is as sound as without copies.
    let batches: Vec<_> = store.read(Read::all()).try_collect().await.unwrap();
    let data: Vec<_> = batches.iter().flat_map(|batch| &batch.events).collect();
    assert_eq!(
        &data[0].data[..],
        br#"{"amount": 250, "to": {"city": "Bonn"}}"#
    );
    assert_eq!(&data[2].data[..], br#"{"a.b": 250}"#);
    store.verify().await.unwrap();

    // Erasing the data erases the copy, and leaves those of other events.
    let deleted = Delete::stream(StreamName::new("b").unwrap(), ExpectedRevision::Any);
    store.delete(deleted).await.unwrap();
    let erased: Vec<_> = store
        .scavenge(Scavenge::default())
        .try_collect()
        .await
        .unwrap();
    assert_eq!(erased.last().unwrap().events, 2);
    assert_eq!(count(in_kiel).await.unwrap(), 0);
    let in_bonn = doc! { "events.json.to.city": "Bonn" };
    assert_eq!(count(in_bonn).await.unwrap(), 1);
    store.verify().await.unwrap();
}
