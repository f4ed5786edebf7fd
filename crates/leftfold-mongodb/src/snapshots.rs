//! Snapshots in the database.
//!
//! **Owns:** [`MongoSnapshotStore`]: the collection `snapshots`. **Does not know:** what a state is.
//! **Invariants:** as those of the contract; which of two snapshots stays is decided by the filter of the update that saves.

use std::sync::Arc;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use leftfold_model::{Position, Revision, StreamName};
use leftfold_store::{SavedSnapshot, SnapshotError, SnapshotStore};
use mongodb::{
    Collection,
    bson::{Binary, doc},
};
use serde::{Deserialize, Serialize};

use crate::{
    document::{binary, event_id, to_i64, to_u64, uuid},
    error::Failure,
    log::Log,
};

/// Maximum bytes of a state: a document of the server holds 16 MiB.
const STATE_BYTES_MAX: usize = 15 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    #[serde(rename = "_id")]
    stream: String,
    revision: i64,
    position: i64,
    last_event: Binary,
    fingerprint: Binary,
    state: Binary,
}

/// Snapshots beside the log, in the same database.
#[derive(Debug)]
pub(crate) struct MongoSnapshotStore {
    log: Log,
    snapshots: Collection<Saved>,
}

impl MongoSnapshotStore {
    pub(crate) fn new(log: Log) -> Self {
        Self {
            snapshots: log.collection("snapshots"),
            log,
        }
    }

    async fn find(&self, stream: &StreamName) -> Result<Option<Saved>, Failure> {
        let finding = self.snapshots.find_one(doc! { "_id": stream.as_str() });
        self.log.within(finding.into_future()).await
    }

    async fn keep(&self, saved: &Saved) -> Result<(), Failure> {
        let replaceable = doc! {
            "_id": &saved.stream,
            "$or": [
                { "fingerprint": { "$ne": &saved.fingerprint } },
                { "revision": { "$lt": saved.revision } },
            ],
        };
        let replacing = self.snapshots.replace_one(replaceable, saved).into_future();
        if self.log.within(replacing).await?.matched_count == 1 {
            return Ok(());
        }
        match self
            .log
            .within(self.snapshots.insert_one(saved).into_future())
            .await
        {
            Ok(_) => Ok(()),
            // There is one of the same program that is as new.
            Err(failure) if failure.is_duplicate_key() => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

fn unavailable(failure: Failure) -> SnapshotError {
    SnapshotError::Unavailable {
        cause: Arc::new(failure),
    }
}

fn decode(saved: Saved) -> Result<SavedSnapshot, Failure> {
    let fingerprint = saved.fingerprint.bytes.as_slice().try_into();
    Ok(SavedSnapshot {
        revision: Revision::new(to_u64(saved.revision)?),
        position: Position::new(to_u64(saved.position)?),
        last_event: event_id(&saved.last_event)?,
        fingerprint: fingerprint.map_err(|_| Failure::Damaged("fingerprint".to_owned()))?,
        state: Bytes::from(saved.state.bytes),
    })
}

impl SnapshotStore for MongoSnapshotStore {
    fn load<'a>(
        &'a self,
        stream: &'a StreamName,
    ) -> BoxFuture<'a, Result<Option<SavedSnapshot>, SnapshotError>> {
        Box::pin(async move {
            let found = self.find(stream).await.map_err(unavailable)?;
            let damaged = |_| SnapshotError::Damaged {
                stream: stream.clone(),
            };
            found.map(decode).transpose().map_err(damaged)
        })
    }

    fn save<'a>(
        &'a self,
        stream: &'a StreamName,
        snapshot: SavedSnapshot,
    ) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(async move {
            if snapshot.state.len() > STATE_BYTES_MAX {
                return Err(unavailable(Failure::Unexpected(format!(
                    "snapshot of stream {stream} is too large: {} bytes; expected at most {STATE_BYTES_MAX}",
                    snapshot.state.len()
                ))));
            }
            let saved = Saved {
                stream: stream.as_str().to_owned(),
                revision: to_i64(snapshot.revision.get()),
                position: to_i64(snapshot.position.get()),
                last_event: uuid(*snapshot.last_event.as_bytes()),
                fingerprint: binary(snapshot.fingerprint),
                state: binary(snapshot.state),
            };
            self.keep(&saved).await.map_err(unavailable)
        })
    }

    fn remove<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(async move {
            let removing = self.snapshots.delete_one(doc! { "_id": stream.as_str() });
            let removed = self.log.within(removing.into_future()).await;
            removed.map(drop).map_err(unavailable)
        })
    }
}
