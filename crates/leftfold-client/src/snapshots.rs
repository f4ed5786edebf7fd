//! Snapshots on the server.
//!
//! **Owns:** the calls of the snapshot store. **Does not know:** what a state is.
//! **Invariants:** every call may be repeated: of two snapshots the newer stays, and removing an absent one is no error.

use std::{fmt, sync::Arc};

use futures_core::future::BoxFuture;
use leftfold_model::StreamName;
use leftfold_proto::leftfold::v1 as wire;
use leftfold_store::{SavedSnapshot, SnapshotError, SnapshotStore};

use crate::{
    RpcError,
    call::{CallError, ConnectionPool},
    connection::StoreStub,
    decode, encode, status,
};

/// The snapshots beside the server's log.
pub(crate) struct RemoteSnapshotStore(pub(crate) Arc<ConnectionPool>);

impl fmt::Debug for RemoteSnapshotStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteSnapshots")
            .field(&self.0.address)
            .finish()
    }
}

impl SnapshotStore for RemoteSnapshotStore {
    fn load<'a>(
        &'a self,
        stream: &'a StreamName,
    ) -> BoxFuture<'a, Result<Option<SavedSnapshot>, SnapshotError>> {
        Box::pin(async move {
            let ask = |mut calls: StoreStub| async move {
                let stream = stream.to_string();
                calls
                    .load_snapshot(wire::LoadSnapshotRequest { stream })
                    .await
            };
            let answer: wire::LoadSnapshotResponse =
                self.0.call_with_retry(ask).await.map_err(refused)?;
            let snapshot = answer.snapshot.map(decode::snapshot).transpose();
            snapshot.map_err(|error: RpcError| SnapshotError::Unavailable {
                cause: error.cause(),
            })
        })
    }

    fn save<'a>(
        &'a self,
        stream: &'a StreamName,
        snapshot: SavedSnapshot,
    ) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(async move {
            let request = wire::SaveSnapshotRequest {
                stream: stream.to_string(),
                snapshot: Some(encode::snapshot(&snapshot)),
            };
            let ask = |mut calls: StoreStub| {
                let request = request.clone();
                async move { calls.save_snapshot(request).await }
            };
            self.0.call_with_retry(ask).await.map(drop).map_err(refused)
        })
    }

    fn remove<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(async move {
            let ask = |mut calls: StoreStub| async move {
                let stream = stream.to_string();
                let request = wire::RemoveSnapshotRequest { stream };
                calls.remove_snapshot(request).await
            };
            self.0.call_with_retry(ask).await.map(drop).map_err(refused)
        })
    }
}

fn refused(unanswered: CallError) -> SnapshotError {
    match unanswered {
        CallError::Store(failure) => status::snapshot_error(failure),
        CallError::Rejected(cause) | CallError::Timeout(cause) => {
            SnapshotError::Unavailable { cause }
        }
    }
}
