//! A store that seals personal fields on their way in and opens them on their way out.
//!
//! **Owns:** [`SealingStore`], and the keys of a store's subjects. **Does not know:** event types of the application.
//! **Invariants:** what is marked as personal reaches the inner store sealed or not at all; a value whose key is gone
//! is read as forgotten, at once and by every reader, because keys are looked up for each batch and kept nowhere.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use futures_util::{TryStreamExt, future::BoxFuture, stream, stream::BoxStream};
use leftfold_model::{
    Append, Appended, Bytes, ContentType, NewEvent, Position, Read, RecordedEvent, StreamName,
    StreamWrite,
};
use leftfold_store::{
    AppendError, Backend, Capabilities, Delete, Delivery, EventStore, ListStreams, ReadBatch,
    ReadError, Scavenge, ScavengeProgress, SnapshotStore, StoreStats, StreamInfo, StreamState,
    Subscription,
    consumers::Consumers,
    keys::{KeyError, KeyId, KeyStore, Subject, SubjectKey},
};

use super::{
    cipher::{SubjectCipher, decrypt_state, encrypt_state},
    seal::{Fields, Scratch, SealedFields},
};

/// The kind of the subject whose key seals snapshots. It is destroyed whenever any subject is forgotten.
const SNAPSHOTS: &str = "$snapshots";

/// The keys of one store, or of one tenant of it.
#[derive(Debug, Clone)]
pub(crate) struct Erasure {
    pub(super) keys: Arc<dyn KeyStore>,
    pub(super) tenant: Arc<str>,
}

impl Erasure {
    pub(crate) fn new(keys: Arc<dyn KeyStore>, tenant: Arc<str>) -> Self {
        Self { keys, tenant }
    }

    /// Returns the keys, those of all tenants among them.
    pub(crate) fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::clone(&self.keys)
    }

    pub(crate) fn subject(&self, kind: &str, id: &str) -> Subject {
        Subject {
            tenant: self.tenant.to_string(),
            kind: kind.to_owned(),
            id: id.to_owned(),
        }
    }

    pub(crate) fn snapshots(&self) -> Subject {
        self.subject(SNAPSHOTS, "all")
    }

    /// Returns the key for snapshots of states that are read from now on: if a subject is forgotten meanwhile, nothing
    /// can open what it seals.
    pub(crate) async fn snapshot_key(&self) -> Result<SubjectKey, KeyError> {
        self.keys.key(&self.snapshots()).await
    }

    /// Seals the marked fields of an append's events.
    pub(crate) async fn seal(&self, append: Append) -> Result<Append, KeyError> {
        let mut subjects = BTreeSet::new();
        for event in append.events() {
            if let Some(fields) = to_seal(event) {
                subjects.extend(fields.subjects());
            }
        }
        if subjects.is_empty() {
            return Ok(append);
        }
        let mut ciphers = BTreeMap::new();
        for (kind, id) in subjects {
            let key = self.keys.key(&self.subject(&kind, &id)).await?;
            ciphers.insert((kind, id), SubjectCipher::new(key));
        }
        let cipher_of = |kind: &str, id: &str| ciphers.get(&(kind.to_owned(), id.to_owned()));
        let unsealed = |error: &dyn fmt::Display| KeyError::Unavailable {
            reason: format!("sealed, the append is not valid: {error}"),
        };
        let (mut writes, checks, conditions) = append.into_parts();
        let events = writes
            .iter_mut()
            .flat_map(|StreamWrite { events, .. }| events);
        for event in events {
            let Some(mut fields) = to_seal(event) else {
                continue;
            };
            fields.seal(event.event_type().as_str(), cipher_of)?;
            let sealed = fields.to_json().map_err(|error| unsealed(&error))?;
            *event = event.clone().with_data(sealed);
        }
        let sealed = Append::new(writes, conditions).and_then(|append| append.with_checks(checks));
        sealed.map_err(|error| unsealed(&error))
    }

    async fn open(&self, events: &mut [RecordedEvent]) -> Result<(), ReadError> {
        let json = |event: &RecordedEvent| {
            let is_json = event.content_type == ContentType::Json;
            is_json.then(|| event.data.clone())
        };
        let stored: Vec<Option<Bytes>> = events.iter().map(json).collect();
        let sealed: Vec<_> = stored
            .iter()
            .map(|data| SealedFields::of(data.as_ref()?))
            .collect();
        let mut ids: Vec<KeyId> = sealed
            .iter()
            .flatten()
            .flat_map(|fields| fields.keys())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        if sealed.iter().all(Option::is_none) {
            return Ok(());
        }
        let found = self.keys.find(&ids).await;
        let found = found.map_err(|error| ReadError::Unavailable {
            cause: Arc::new(error),
        })?;
        let ciphers: HashMap<_, _> = found
            .into_iter()
            .map(|key| (key.id, SubjectCipher::new(key)))
            .collect();
        let mut scratch = Scratch::default();
        for (event, sealed) in events.iter_mut().zip(&sealed) {
            if let Some(fields) = sealed {
                let event_type = event.event_type.as_str();
                let opened = fields.open(event_type, |id| ciphers.get(id), &mut scratch);
                event.data = Bytes::copy_from_slice(opened.map_err(corrupt)?);
            }
        }
        Ok(())
    }
}

fn corrupt(error: impl std::error::Error + Send + Sync + 'static) -> ReadError {
    ReadError::Corrupt {
        cause: Arc::new(error),
    }
}

/// Returns the fields of an event if one of them may be marked for being sealed.
fn to_seal(event: &NewEvent) -> Option<Fields<'_>> {
    let is_json = event.content_type() == ContentType::Json;
    is_json.then(|| Fields::to_seal(event.data()))?
}

/// Seals the state of a snapshot, bound to its stream and place.
pub(crate) fn seal_state(
    key: &SubjectKey,
    state: &[u8],
    stream: &StreamName,
    revision: u64,
) -> Result<Vec<u8>, KeyError> {
    encrypt_state(key, state, &place(stream, revision))
}

/// Opens the state of a snapshot; `None` if it was sealed under another key or for another place.
pub(crate) fn open_state(
    key: &SubjectKey,
    sealed: &[u8],
    stream: &StreamName,
    revision: u64,
) -> Option<Vec<u8>> {
    decrypt_state(key, sealed, &place(stream, revision))
}

fn place(stream: &StreamName, revision: u64) -> Vec<u8> {
    format!("snapshot {revision} {stream}").into_bytes()
}

/// A store whose events' personal fields are sealed.
#[derive(Debug)]
pub(crate) struct SealingStore {
    pub(crate) inner: Arc<dyn EventStore>,
    pub(crate) erasure: Arc<Erasure>,
}

impl EventStore for SealingStore {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            let sealed = self.erasure.seal(append).await;
            let sealed = sealed.map_err(|error| AppendError::Unavailable {
                cause: Arc::new(error),
            })?;
            self.inner.append(sealed).await
        })
    }

    fn prepare<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, ()> {
        self.inner.prepare(stream)
    }

    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        let begin = (self.inner.read(read), Arc::clone(&self.erasure));
        Box::pin(stream::try_unfold(
            begin,
            |(mut batches, erasure)| async move {
                let Some(mut batch) = batches.try_next().await? else {
                    return Ok(None);
                };
                erasure.open(&mut batch.events).await?;
                Ok(Some((batch, (batches, erasure))))
            },
        ))
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        let begin = (
            self.inner.subscribe(subscription),
            Arc::clone(&self.erasure),
        );
        Box::pin(stream::try_unfold(begin, |(mut all, erasure)| async move {
            let Some(mut delivery) = all.try_next().await? else {
                return Ok(None);
            };
            erasure.open(&mut delivery.events).await?;
            Ok(Some((delivery, (all, erasure))))
        }))
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.inner.head()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        self.inner.check()
    }

    fn stream_state(&self, stream: StreamName) -> BoxFuture<'_, Result<StreamState, ReadError>> {
        self.inner.stream_state(stream)
    }

    fn delete(&self, delete: Delete) -> BoxFuture<'_, Result<Appended, AppendError>> {
        self.inner.delete(delete)
    }

    fn scavenge(
        &self,
        scavenge: Scavenge,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        self.inner.scavenge(scavenge)
    }

    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        self.inner.streams(list)
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        self.inner.stats()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        self.inner.snapshots()
    }

    fn consumers(&self) -> Arc<dyn Consumers> {
        self.inner.consumers()
    }

    fn storage(&self) -> Option<Arc<dyn Backend>> {
        self.inner.storage()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        self.inner.close()
    }
}
