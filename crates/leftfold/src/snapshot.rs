//! Snapshots: saved states, so that a load need not begin at the first event.
//!
//! **Owns:** the trait [`Snapshot`], when snapshots are taken, and which are used. **Does not know:** where they are stored.
//! **Invariants:**
//! - A load uses a snapshot only if its fingerprint is that of this program's state and events, it can be decoded, and the log
//!   holds its last event where the snapshot says. Otherwise it replays all events.
//! - Taking a snapshot never delays or fails a command.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use leftfold_model::{EventId, StreamName};
use leftfold_store::{EventStore, SavedSnapshot, SnapshotStore};
use serde::{Serialize, de::DeserializeOwned};
use tokio::runtime::Handle;

use crate::{
    Aggregate, Event, LoadError, Loaded, Shape, Store, SubjectKey,
    erasure::{Erasure, open_state, revealed, seal_state},
    error::Cause,
    event::codec,
    load::{LastEvent, replay, replay_after},
    shape_of,
};

/// State that can be kept. Derive it.
///
/// ```
/// use leftfold::Snapshot;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Default, Serialize, Deserialize, Snapshot)]
/// #[snapshot(version = 1, every = 100)]
/// struct BankAccount { balance: u64 }
/// ```
///
/// Whatever changes the fields of the state, or the events it is made of, makes older snapshots worthless by itself. If
/// **what `apply` or an upcast computes** changes and the fields do not, raise the version: that cannot be seen from outside.
#[diagnostic::on_unimplemented(
    message = "no snapshots can be taken of `{Self}`",
    note = "write `#[derive(leftfold::Snapshot, serde::Serialize, serde::Deserialize)]` above it"
)]
pub trait Snapshot: Shape + Serialize + DeserializeOwned {
    /// To be raised when `apply` or an upcast computes something else from the same events.
    const VERSION: u32;
    /// After how many events the next one is taken.
    const EVERY: u32;
}

impl<T: Snapshot> Snapshot for Option<T> {
    const VERSION: u32 = T::VERSION;
    const EVERY: u32 = T::EVERY;
}

/// How many snapshots may be on their way at once, for one repository; more are left out, and taken later.
const UNDER_WAY_MAX: usize = 4;

/// Snapshots of one kind of aggregate. Knows by pointers what only a state with snapshots can do, so that repositories
/// carry no bound.
pub(crate) struct Snapshotter<A> {
    kept: Arc<dyn SnapshotStore>,
    fingerprint: [u8; 16],
    every: u64,
    encode: fn(&A) -> Result<Vec<u8>, Cause>,
    decode: fn(&[u8]) -> Result<A, serde_json::Error>,
    under_way: Mutex<HashSet<StreamName>>,
    /// Whether states may hold what is personal; they are then sealed.
    is_personal: bool,
    erasure: Option<Arc<Erasure>>,
}

impl<A> fmt::Debug for Snapshotter<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots")
            .field("kept", &self.kept)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

/// Of what a snapshot must be to be believed: the state's shape, the events' shapes, and what old events become.
fn fingerprint<A: Aggregate + Snapshot>() -> [u8; 16] {
    let mut text = format!("{} {} {}", A::CATEGORY, A::VERSION, shape_of::<A>());
    for (index, kind) in A::Event::KINDS.iter().enumerate() {
        text += &format!(
            "\n{} {} {}",
            kind.name,
            kind.version,
            A::Event::shape(index)
        );
    }
    text += &format!("\nunknown {:?}", A::Event::UNKNOWN);
    for (name, version) in A::Event::upcasts().shapes() {
        text += &format!("\nupcast {name} {version}");
    }
    let namespace = EventId::from_bytes(*b"leftfold-print-1");
    *EventId::derived(namespace, text.as_bytes()).as_bytes()
}

impl<A: Aggregate> Snapshotter<A> {
    pub(crate) fn of(store: &Store) -> Self
    where
        A: Snapshot,
    {
        Self {
            kept: store.event_store().snapshots(),
            is_personal: !A::Event::PERSONAL.is_empty(),
            erasure: store.erasure().cloned(),
            fingerprint: fingerprint::<A>(),
            every: u64::from(A::EVERY),
            encode: codec::encode_state::<A>,
            decode: |bytes| serde_json::from_slice(bytes),
            under_way: Mutex::default(),
        }
    }

    /// Loads an aggregate, from its snapshot if there is one to believe.
    pub(crate) async fn load(
        &self,
        store: &dyn EventStore,
        stream: &StreamName,
    ) -> Result<Loaded<A>, LoadError> {
        let key = match (&self.erasure, self.is_personal) {
            (_, false) => None,
            (None, true) => return replay(store, stream, None).await,
            // Before anything is read: who forgets a subject destroys this key after that of the subject.
            (Some(erasure), true) => match erasure.snapshot_key().await {
                Ok(key) => Some(key),
                Err(error) => {
                    tracing::warn!(%stream, %error, "snapshots cannot be opened");
                    return replay(store, stream, None).await;
                }
            },
        };
        let mut loaded = self.load_with(store, stream, key.as_ref()).await?;
        loaded.snapshot_key = key;
        Ok(loaded)
    }

    async fn load_with(
        &self,
        store: &dyn EventStore,
        stream: &StreamName,
        key: Option<&SubjectKey>,
    ) -> Result<Loaded<A>, LoadError> {
        let found = self.kept.load(stream).await;
        let outcome = match found {
            Err(error) => {
                tracing::warn!(%stream, %error, "snapshot cannot be read");
                "unreadable"
            }
            Ok(None) => "missing",
            Ok(Some(saved)) if saved.fingerprint != self.fingerprint => "of another shape",
            Ok(Some(saved)) => match self.decoded(&saved, stream, key) {
                None => "undecodable",
                Some(state) => match replay_after(store, stream, last(&saved), state).await? {
                    Some(loaded) => {
                        note("hit");
                        return Ok(loaded);
                    }
                    None => "not of this log",
                },
            },
        };
        note(outcome);
        replay(store, stream, None).await
    }

    fn decoded(
        &self,
        saved: &SavedSnapshot,
        stream: &StreamName,
        key: Option<&SubjectKey>,
    ) -> Option<A> {
        let Some(key) = key else {
            return (self.decode)(&saved.state).ok();
        };
        let state = open_state(key, &saved.state, stream, saved.revision.get())?;
        (self.decode)(&state).ok()
    }

    /// Encodes a state, sealed if it may hold what is personal. `Err`: why not.
    fn encoded(&self, stream: &StreamName, loaded: &Loaded<A>) -> Result<Vec<u8>, String> {
        if !self.is_personal {
            return (self.encode)(&loaded.state).map_err(|error| error.to_string());
        }
        let key = loaded
            .snapshot_key
            .as_ref()
            .ok_or("the store has no keys")?;
        let revision = loaded.revision().unwrap_or_default().get();
        let state = revealed(|| (self.encode)(&loaded.state)).map_err(|error| error.to_string())?;
        seal_state(key, &state, stream, revision).map_err(|error| error.to_string())
    }

    /// Whether enough events were read that a snapshot is worth its while.
    pub(crate) fn is_due(&self, loaded: &Loaded<A>) -> bool {
        loaded.replayed >= self.every
    }

    /// Takes a snapshot in the background, unless one of this aggregate, or enough others, are on their way.
    pub(crate) fn spawn_snapshot(self: &Arc<Self>, store: &Store, stream: &StreamName) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        {
            let mut under_way = self.under_way();
            if under_way.len() >= UNDER_WAY_MAX || !under_way.insert(stream.clone()) {
                return;
            }
        }
        let (snapshots, store, stream) = (Arc::clone(self), store.clone(), stream.clone());
        runtime.spawn(async move {
            let done = Done(&snapshots, &stream);
            match snapshots.load(store.event_store().as_ref(), &stream).await {
                Ok(loaded) => {
                    snapshots.take(&stream, &loaded).await;
                }
                Err(error) => tracing::warn!(%stream, %error, "no snapshot: the load failed"),
            }
            drop(done);
        });
    }

    /// Takes a snapshot now. `false`: there is nothing to keep, or it could not be kept.
    pub(crate) async fn take(&self, stream: &StreamName, loaded: &Loaded<A>) -> bool {
        let Some(last) = loaded.last else {
            return false;
        };
        let state = match self.encoded(stream, loaded) {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%stream, %error, "no snapshot: the state cannot be encoded");
                note("not encodable");
                return false;
            }
        };
        let saved = SavedSnapshot {
            revision: last.revision,
            position: last.position,
            last_event: last.id,
            fingerprint: self.fingerprint,
            state: state.into(),
        };
        match self.kept.save(stream, saved).await {
            Ok(()) => {
                note("taken");
                true
            }
            Err(error) => {
                tracing::warn!(%stream, %error, "snapshot cannot be kept");
                note("not kept");
                false
            }
        }
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, HashSet<StreamName>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes that a snapshot is no longer on its way, also after a panic of the state's code.
struct Done<'a, A: Aggregate>(&'a Snapshotter<A>, &'a StreamName);

impl<A: Aggregate> Drop for Done<'_, A> {
    fn drop(&mut self) {
        self.0.under_way().remove(self.1);
    }
}

fn last(saved: &SavedSnapshot) -> LastEvent {
    LastEvent {
        revision: saved.revision,
        position: saved.position,
        id: saved.last_event,
    }
}

fn note(outcome: &'static str) {
    metrics::counter!("leftfold_snapshots_total", "outcome" => outcome).increment(1);
}
