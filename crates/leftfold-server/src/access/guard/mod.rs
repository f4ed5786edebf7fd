//! The store as one principal may use it.
//!
//! **Owns:** [`GuardedStore`]: which right each method of the contract needs, and what of an answer is left out.
//! **Does not know:** wires, how rights are kept.
//! **Invariants:** every method decides by the rights as they are at that moment; what is denied reaches the store never;
//! an answer to a caller without a right does not depend on what is stored.

mod beside;
mod group_reader;
mod reading;

use std::sync::Arc;

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{StreamExt, stream};
use leftfold_model::{Append, Appended, Position, Read, Revision, Scope, StreamName, StreamWrite};
use leftfold_store::{
    AppendError, Capabilities, Delete, Delivery, EventStore, ListStreams, METADATA_EVENT_TYPE,
    ReadBatch, ReadError, Scavenge, ScavengeProgress, SnapshotStore, StoreStats, StreamInfo,
    StreamMetadata, StreamState, Subscription, TOMBSTONE_EVENT_TYPE, consumers::Consumers,
};

pub(crate) use self::group_reader::GroupReader;
use super::{control::AccessControl, directory::Rights, grant::Right, principal::Principal};
use crate::RestrictedReads;

/// A store, guarded. Cheap to make: one for each request.
#[derive(Debug, Clone)]
struct GuardedStore {
    access: Arc<AccessControl>,
    principal: Principal,
}

/// A right that is missing.
#[derive(Debug, Clone)]
struct Denied(String);

impl From<Denied> for AppendError {
    fn from(Denied(reason): Denied) -> Self {
        Self::AccessDenied { reason }
    }
}

impl From<Denied> for ReadError {
    fn from(Denied(reason): Denied) -> Self {
        Self::AccessDenied { reason }
    }
}

impl AccessControl {
    /// The store as this principal may use it.
    pub(crate) fn guard(self: &Arc<Self>, principal: Principal) -> Arc<dyn EventStore> {
        let access = Arc::clone(self);
        Arc::new(GuardedStore { access, principal })
    }
}

impl GuardedStore {
    fn decide<T>(&self, decide: impl FnOnce(&Rights) -> Result<T, String>) -> Result<T, Denied> {
        let rights = self.access.directory.read();
        if !rights.is_current(&self.principal) {
            return Err(Denied(self.expired()));
        }
        let decided = decide(&rights);
        drop(rights);
        decided.map_err(|reason| {
            self.access.note_denial(&self.principal, &reason);
            Denied(reason)
        })
    }

    fn expired(&self) -> String {
        format!("the credentials of {} are no longer valid", self.principal)
    }

    fn missing(&self, right: Right, stream: &StreamName) -> String {
        format!("{} may not {right} stream {stream}", self.principal)
    }

    fn needs(&self, rights: &Rights, right: Right, stream: &StreamName) -> Result<(), String> {
        if rights.allows(&self.principal, right, stream) {
            Ok(())
        } else {
            Err(self.missing(right, stream))
        }
    }

    fn check_write(&self, rights: &Rights, write: &StreamWrite) -> Result<(), String> {
        let own_tags = || {
            !write.stream.as_str().starts_with('$')
                && !write.events.is_empty()
                && write.events.iter().all(|event| {
                    let tags = event.tags().iter().map(|tag| tag.as_str());
                    rights.allows_by_tags(&self.principal, Right::Write, tags)
                })
        };
        if rights.allows(&self.principal, Right::Write, &write.stream) || own_tags() {
            must_not_hide_acl(rights, write)
        } else {
            Err(self.missing(Right::Write, &write.stream))
        }
    }

    fn check_append(&self, append: &Append) -> Result<(), Denied> {
        self.decide(|rights| {
            for write in append.writes() {
                self.check_write(rights, write)?;
            }
            // A check that fails tells what stands there.
            for check in append.checks() {
                self.needs(rights, Right::Read, &check.stream)?;
            }
            for condition in append.conditions() {
                if !rights.may_ask(&self.principal, &condition.fail_if_match) {
                    return Err(format!(
                        "{} may not state a condition over events that it may not read",
                        self.principal
                    ));
                }
            }
            Ok(())
        })
    }

    /// Lists of rights among what was appended count from now on.
    fn take_in(&self, append: &Append, appended: &Appended) {
        // A stream may be written to several times, each time with a last revision of its own.
        for (write, (_, last)) in append.writes().iter().zip(&appended.streams) {
            if !changes_rights(&write.stream) {
                continue;
            }
            let before = write.events.len().saturating_sub(1) as u64;
            let first = last.get().saturating_sub(before);
            for (revision, event) in (first..).zip(&write.events) {
                self.access.directory.apply_appended(
                    &write.stream,
                    event.event_type().as_str(),
                    Revision::new(revision),
                    event.data(),
                );
            }
        }
    }

    /// Whether a read of several streams is given as it is, or without what may not be seen.
    fn check_selection(&self, scope: &Scope) -> Result<(), Denied> {
        self.decide(|rights| match scope {
            Scope::Stream(stream) => {
                let readable = rights.allows(&self.principal, Right::Read, stream)
                    || (rights.has_grants_by_tag(&self.principal, Right::Read)
                        && !stream.as_str().starts_with('$'));
                readable
                    .then_some(())
                    .ok_or_else(|| self.missing(Right::Read, stream))
            }
            // Whatever else there may be is filtered as the whole log is.
            _ => {
                let refused = self.access.restricted_reads == RestrictedReads::Refuse
                    && !rights.reads_all_user_streams(&self.principal);
                if refused || self.principal == Principal::Anonymous {
                    return Err(format!("{} may not read every stream", self.principal));
                }
                Ok(())
            }
        })
    }

    fn check_operator(&self, what: &str) -> Result<(), Denied> {
        self.decide(|rights| {
            if rights.is_operator(&self.principal) {
                return Ok(());
            }
            Err(format!("{} may not {what}; operators may", self.principal))
        })
    }
}

/// Refuses an event that is no metadata in the metadata stream of a stream with an access control list. It would be the newest
/// one, and the list would be gone with the next scavenge and start.
fn must_not_hide_acl(rights: &Rights, write: &StreamWrite) -> Result<(), String> {
    let Some(described) = write.stream.described_stream() else {
        return Ok(());
    };
    let is_metadata =
        |event_type: &str| [METADATA_EVENT_TYPE, TOMBSTONE_EVENT_TYPE].contains(&event_type);
    let mut types = write.events.iter().map(|event| event.event_type().as_str());
    match types.find(|event_type| !is_metadata(event_type)) {
        Some(other) if rights.has_acl(&described) => Err(format!(
            "an event of type {other} in {} would hide the access control list of {described}; expected {METADATA_EVENT_TYPE}",
            write.stream
        )),
        _ => Ok(()),
    }
}

/// Whether events of a stream change rights: metadata, and the lists for streams without one.
fn changes_rights(stream: &StreamName) -> bool {
    stream.is_metadata_stream() || stream.as_str() == super::record::SETTINGS_STREAM
}

impl EventStore for GuardedStore {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            self.check_append(&append)?;
            let appended = self.access.store.append(append.clone()).await?;
            self.take_in(&append, &appended);
            Ok(appended)
        })
    }

    fn prepare<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if self
                .decide(|rights| self.needs(rights, Right::Write, stream))
                .is_ok()
            {
                self.access.store.prepare(stream).await;
            }
        })
    }

    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        match self.check_selection(&read.scope) {
            Ok(()) => reading::read(self.clone(), read),
            Err(denied) => once(denied),
        }
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        match self.check_selection(&subscription.scope) {
            Ok(()) => reading::subscribe(self.clone(), subscription),
            Err(denied) => once(denied),
        }
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        Box::pin(async move {
            self.decide(|_| match self.principal {
                Principal::Anonymous => {
                    Err("anonymous may not read the head of the log".to_owned())
                }
                _ => Ok(()),
            })?;
            self.access.store.head().await
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        self.access.store.check()
    }

    fn stream_state(&self, stream: StreamName) -> BoxFuture<'_, Result<StreamState, ReadError>> {
        Box::pin(async move {
            let reads_metadata = self.decide(|rights| {
                let has = |right| rights.allows(&self.principal, right, &stream);
                let reads_metadata = has(Right::ReadMetadata);
                // Where an append or a deletion ends tells its caller as much.
                if reads_metadata || has(Right::Read) || has(Right::Write) || has(Right::Delete) {
                    return Ok(reads_metadata);
                }
                Err(self.missing(Right::Read, &stream))
            })?;
            let mut state = self.access.store.stream_state(stream).await?;
            if !reads_metadata {
                state.metadata = StreamMetadata::default();
            }
            Ok(state)
        })
    }

    fn delete(&self, delete: Delete) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            self.decide(|rights| self.needs(rights, Right::Delete, &delete.stream))?;
            self.access.store.delete(delete).await
        })
    }

    fn scavenge(
        &self,
        scavenge: Scavenge,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        match self.check_operator("scavenge") {
            Ok(()) => self.access.store.scavenge(scavenge),
            Err(denied) => once(denied),
        }
    }

    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        reading::streams(self.clone(), list)
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        Box::pin(async move {
            self.check_operator("read the statistics")?;
            self.access.store.stats().await
        })
    }

    fn capabilities(&self) -> Capabilities {
        self.access.store.capabilities()
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::new(beside::GuardedSnapshots(self.clone()))
    }

    fn consumers(&self) -> Arc<dyn Consumers> {
        Arc::new(beside::GuardedConsumers(self.clone()))
    }

    /// No request closes the store; the server does when it ends.
    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(async move {
            self.check_operator("close the store")?;
            self.access.store.close().await
        })
    }
}

fn once<T: Send + 'static>(denied: Denied) -> BoxStream<'static, Result<T, ReadError>> {
    stream::iter([Err(denied.into())]).boxed()
}

#[cfg(test)]
mod tests;
