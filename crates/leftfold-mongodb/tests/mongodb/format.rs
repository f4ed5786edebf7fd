//! What the collections hold, looked at and changed by other programs.

use futures_util::TryStreamExt;
use leftfold_model::{
    Append, EventType, ExpectedRevision, NewEvent, Query, QueryItem, Read, StreamName, Tag,
};
use leftfold_mongodb::{MongoOptions, MongoStore, OpenError};
use leftfold_store::EventStore;
use mongodb::{
    Client, Collection,
    bson::{Document, doc},
};

use crate::server::{address, fresh};

async fn collection(options: &MongoOptions, name: &str) -> Collection<Document> {
    let client = Client::with_uri_str(address()).await.unwrap();
    client.database(options.database()).collection(name)
}

fn deposit(stream: &str, tag: &str) -> Append {
    let event = NewEvent::json(EventType::new("DepositMade").unwrap(), "{}");
    let event = event.with_tags([Tag::new(tag).unwrap()]).unwrap();
    let stream = StreamName::new(stream).unwrap();
    Append::to(stream, ExpectedRevision::Any, vec![event]).unwrap()
}

/// A store of two commits, of an account and a branch each.
async fn two_commits() -> (MongoOptions, MongoStore) {
    let options = fresh();
    let store = MongoStore::open_with(options.clone()).await.unwrap();
    for (stream, tag) in [("account-1", "branch:1"), ("account-2", "branch:2")] {
        store.append(deposit(stream, tag)).await.unwrap();
    }
    (options, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_a_commit_that_its_index_would_miss() {
    let (options, store) = two_commits().await;
    store.verify().await.unwrap();
    let commits = collection(&options, "commits").await;
    let without = doc! { "$pull": { "keys": "tag:branch:2" } };
    commits
        .update_one(doc! { "_id": 2 }, without)
        .await
        .unwrap();
    let error = store.verify().await.unwrap_err();
    let message = format!("{error:?}");
    assert!(
        message.contains("commit 2: its keys are not those of its events"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_programs_find_commits_by_their_keys() {
    let (options, _store) = two_commits().await;
    let commits = collection(&options, "commits").await;
    for key in [
        "stream:account-2",
        "tag:branch:2",
        "place:0000000000000000@account-2",
    ] {
        let found: Vec<_> = commits
            .find(doc! { "keys": key })
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        let numbers: Vec<_> = found
            .iter()
            .map(|commit| commit.get_i64("_id").unwrap())
            .collect();
        assert_eq!(numbers, [2], "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_and_a_tag_of_different_events_of_a_commit_are_no_match() {
    let store = MongoStore::open_with(fresh()).await.unwrap();
    let event = |event_type: &str, tag: &str| {
        let event = NewEvent::json(EventType::new(event_type).unwrap(), "{}");
        event.with_tags([Tag::new(tag).unwrap()]).unwrap()
    };
    let events = vec![
        event("DepositMade", "branch:1"),
        event("WithdrawalMade", "branch:2"),
    ];
    let stream = StreamName::new("account-1").unwrap();
    let append = Append::to(stream, ExpectedRevision::NoStream, events).unwrap();
    store.append(append).await.unwrap();
    let query = |event_type: &str, tag: &str| {
        let item = QueryItem::types([EventType::new(event_type).unwrap()]);
        let item = item.unwrap().and_tags([Tag::new(tag).unwrap()]);
        Query::items([item.unwrap()]).unwrap()
    };
    for (event_type, tag, expected) in [
        ("DepositMade", "branch:1", 1),
        ("DepositMade", "branch:2", 0),
    ] {
        let read = Read::query(query(event_type, tag));
        let batches: Vec<_> = store.read(read).try_collect().await.unwrap();
        let found: usize = batches.iter().map(|batch| batch.events.len()).sum();
        assert_eq!(found, expected, "{event_type} {tag}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_an_older_format_is_refused_by_its_version() {
    let options = fresh();
    drop(MongoStore::open_with(options.clone()).await.unwrap());
    let formats = collection(&options, "format").await;
    let older = doc! { "$set": { "version": 1_i64 } };
    formats
        .update_one(doc! { "_id": "store" }, older)
        .await
        .unwrap();
    let error = MongoStore::open_with(options).await.unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::Older {
                found: 1,
                known: 2,
                ..
            }
        ),
        "{error}"
    );
}
