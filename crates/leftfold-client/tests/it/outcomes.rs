//! Errors of a server's store, as its clients see them.
//!
//! **Owns:** a store that returns prepared errors. **Does not know:** conflicts, which the conformance suite tests.

use std::{io, sync::Arc};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{StreamExt, stream};
use leftfold_client::Client;
use leftfold_model::{
    Append, Appended, Conflict, CurrentRevision, EventId, ExpectedRevision, Position, Read,
    Revision, StreamName,
};
use leftfold_store::{
    AppendError, Capabilities, Cause, Delete, Delivery, EventStore, ListStreams, MemoryStore,
    ReadBatch, ReadError, SavedSnapshot, Scavenge, ScavengeProgress, SnapshotError, SnapshotStore,
    StoreStats, StreamInfo, StreamState, Subscription,
};

use crate::{model::event, running::serve};

/// Answers every append and every read with these errors.
#[derive(Debug, Clone)]
struct Failing {
    append: AppendError,
    read: ReadError,
    snapshot: SnapshotError,
}

fn cause() -> Cause {
    #[derive(Debug, thiserror::Error)]
    #[error("segment 7 refuses")]
    struct Refuses(#[source] io::Error);
    Arc::new(Refuses(io::Error::other("the disk is on fire")))
}

impl Default for Failing {
    fn default() -> Self {
        Self {
            append: AppendError::Unavailable { cause: cause() },
            read: ReadError::Unavailable { cause: cause() },
            snapshot: SnapshotError::Unavailable { cause: cause() },
        }
    }
}

impl Failing {
    fn each<T: Send + 'static>(&self) -> BoxStream<'static, Result<T, ReadError>> {
        Box::pin(stream::iter([Err(self.read.clone())]))
    }
    fn one<T: Send + 'static>(&self) -> BoxFuture<'_, Result<T, ReadError>> {
        Box::pin(async { Err(self.read.clone()) })
    }
}

impl EventStore for Failing {
    fn append(&self, _: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async { Err(self.append.clone()) })
    }
    fn read(&self, _: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        self.each()
    }
    fn subscribe(&self, _: Subscription) -> BoxStream<'static, Result<Delivery, ReadError>> {
        self.each()
    }
    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        Box::pin(async { Ok(Position::START) })
    }
    fn stream_state(&self, _: StreamName) -> BoxFuture<'_, Result<StreamState, ReadError>> {
        self.one()
    }
    fn delete(&self, _: Delete) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async { Err(self.append.clone()) })
    }
    fn scavenge(&self, _: Scavenge) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        self.each()
    }
    fn streams(&self, _: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        self.each()
    }
    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        self.one()
    }
    fn capabilities(&self) -> Capabilities {
        MemoryStore::new().capabilities()
    }
    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::new(self.clone())
    }
    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(async { Ok(()) })
    }
}

impl SnapshotStore for Failing {
    fn load<'a>(
        &'a self,
        _: &'a StreamName,
    ) -> BoxFuture<'a, Result<Option<SavedSnapshot>, SnapshotError>> {
        Box::pin(async { Err(self.snapshot.clone()) })
    }
    fn save<'a>(
        &'a self,
        _: &'a StreamName,
        _: SavedSnapshot,
    ) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(async { Err(self.snapshot.clone()) })
    }
    fn remove<'a>(&'a self, _: &'a StreamName) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(async { Err(self.snapshot.clone()) })
    }
}

async fn client_of(store: Failing) -> Client {
    let address = serve(Arc::new(store), &[]).await;
    Client::connect(&address).await.unwrap()
}

fn name() -> StreamName {
    StreamName::new("a").unwrap()
}

/// The error with all its causes, and which variant it is.
fn whole(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect()
}

#[tokio::test]
async fn every_error_of_an_append_comes_back_with_its_fields_and_causes() {
    let conflicts = [
        Conflict::WrongRevision {
            stream: name(),
            expected: ExpectedRevision::Exact(Revision::new(3)),
            actual: CurrentRevision(Some(Revision::new(u64::MAX - 1))),
        },
        Conflict::WrongRevision {
            stream: name(),
            expected: ExpectedRevision::StreamExists,
            actual: CurrentRevision(None),
        },
        Conflict::WrongRevision {
            stream: name(),
            expected: ExpectedRevision::NoStream,
            actual: CurrentRevision(Some(Revision::FIRST)),
        },
        Conflict::StreamDeleted { stream: name() },
        Conflict::ConditionFailed {
            condition: 63,
            position: Position::new(9),
        },
        Conflict::PartlyStored {
            id: EventId::fresh(),
            position: Position::new(4),
        },
    ];
    let others = [
        AppendError::Invalid {
            reason: "too much".into(),
        },
        AppendError::Unavailable { cause: cause() },
        AppendError::OutcomeUnknown { cause: cause() },
    ];
    let errors = conflicts.map(AppendError::Conflict).into_iter();
    for error in errors.chain(others) {
        let client = client_of(Failing {
            append: error.clone(),
            ..Failing::default()
        })
        .await;
        let append = Append::to(name(), ExpectedRevision::Any, vec![event()]).unwrap();
        let errors = client.append(append).await.unwrap_err();
        let delete = Delete::stream(name(), ExpectedRevision::Any);
        let told_of_delete = client.delete(delete).await.unwrap_err();
        for errors in [errors, told_of_delete] {
            assert_eq!(whole(&errors), whole(&error));
            assert_eq!(errors.is_transient(), error.is_transient());
            let certain = error.is_definitely_not_written();
            assert_eq!(errors.is_definitely_not_written(), certain, "{errors:?}");
            if let AppendError::Conflict(conflict) = &error {
                assert!(
                    matches!(&errors, AppendError::Conflict(same) if same == conflict),
                    "{errors:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn every_error_of_a_read_comes_back_from_every_call() {
    let errors = [
        ReadError::Invalid {
            reason: "a revision without a stream".into(),
        },
        ReadError::StreamDeleted { stream: name() },
        ReadError::Corrupt { cause: cause() },
        ReadError::Unavailable { cause: cause() },
    ];
    for error in errors {
        let client = client_of(Failing {
            read: error.clone(),
            ..Failing::default()
        })
        .await;
        let all = Subscription::after(Position::START);
        let mut subscription = client.subscribe(all);
        let errors = [
            client.read(Read::all()).next().await.unwrap().unwrap_err(),
            subscription.next().await.unwrap().unwrap_err(),
            client.stream_state(name()).await.unwrap_err(),
            client.stats().await.unwrap_err(),
            client
                .streams(ListStreams::default())
                .next()
                .await
                .unwrap()
                .unwrap_err(),
            client
                .scavenge(Scavenge::default())
                .next()
                .await
                .unwrap()
                .unwrap_err(),
        ];
        assert!(subscription.next().await.is_none());
        for errors in errors {
            assert_eq!(whole(&errors), whole(&error));
            assert_eq!(
                std::mem::discriminant(&errors),
                std::mem::discriminant(&error)
            );
        }
    }
}

#[tokio::test]
async fn every_error_of_a_snapshot_comes_back() {
    for error in [
        SnapshotError::Damaged { stream: name() },
        SnapshotError::Unavailable { cause: cause() },
    ] {
        let client = client_of(Failing {
            snapshot: error.clone(),
            ..Failing::default()
        })
        .await;
        let snapshots = client.snapshots();
        let errors = [
            snapshots.load(&name()).await.unwrap_err(),
            snapshots.remove(&name()).await.unwrap_err(),
        ];
        for errors in errors {
            assert_eq!(whole(&errors), whole(&error));
        }
    }
}

#[tokio::test]
async fn a_long_reason_is_shortened_and_still_arrives() {
    let client = client_of(Failing {
        read: ReadError::Invalid {
            reason: "\u{e4}".repeat(100_000),
        },
        ..Failing::default()
    })
    .await;
    let errors = client.stats().await.unwrap_err();
    assert!(matches!(&errors, ReadError::Invalid { reason } if reason.ends_with("...")));
}
