//! A store in memory: the plainest implementation of the contract.
//!
//! **Owns:** [`MemoryStore`]. **Does not know:** files.
//! **Invariants:** one lock around one list of events; tests compare other stores with this one.

mod state;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::stream;
use leftfold_model::{Append, Appended, CurrentRevision, Position, Read, StreamName, Timestamp};
use tokio::sync::watch;

use self::state::{BATCH_EVENTS_MAX, RECENT_IDS, State, deliver, list_streams};
use crate::{
    AppendError, Backend, BackendStore, Capabilities, Delivery, ListStreams, LogEntry,
    MemorySnapshotStore, ReadBatch, ReadError, ScavengeProgress, SnapshotStore, StoreStats,
    StreamInfo, Subscription, Truncation, clock,
    consumers::{Consumers, MemoryConsumers},
};

/// Streams of a batch, at most.
const BATCH_STREAMS_MAX: usize = 512;

/// A store in memory, for tests and experiments. Its events are gone when it is dropped.
pub type MemoryStore = BackendStore<MemoryBackend>;

/// The storage of a [`MemoryStore`].
#[derive(Clone)]
pub struct MemoryBackend {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The head, for subscriptions that wait; `None` once the store is closed.
    head: watch::Sender<Option<Position>>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    snapshots: Arc<MemorySnapshotStore>,
    consumers: Arc<MemoryConsumers>,
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("events", &self.shared.lock().events.len())
            .finish()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// Creates an empty store on the system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(clock::system_time)
    }

    /// Creates an empty store whose events are recorded, and age, by this clock.
    pub fn with_clock(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let (head, _) = watch::channel(Some(Position::START));
        let clock: Arc<dyn Fn() -> Timestamp + Send + Sync> = Arc::new(clock);
        let dates = Arc::clone(&clock);
        let shared = Shared {
            consumers: Arc::new(MemoryConsumers::with_clock(move || dates())),
            state: Mutex::default(),
            head,
            clock: Arc::clone(&clock),
            snapshots: Arc::default(),
        };
        let backend = MemoryBackend {
            shared: Arc::new(shared),
        };
        Self::from_backend_with_clock(backend, move || clock())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for MemoryBackend {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            let mut state = self.shared.lock();
            if state.closed {
                return Err(AppendError::Unavailable {
                    cause: Arc::new(Closed),
                });
            }
            if let Some(repeated) = state.decide(&append)? {
                return Ok(repeated);
            }
            let appended = state.write(&append, (self.shared.clock)());
            self.shared.head.send_replace(Some(state.head()));
            Ok(appended)
        })
    }

    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(stream::try_unfold(
            ReadStream::NotBegun(read),
            move |reading| {
                let shared = Arc::clone(&shared);
                async move {
                    let state = shared.lock();
                    let (mut positions, token, begun) = match reading {
                        ReadStream::NotBegun(read) => {
                            let positions = state.select(&read)?.into_iter();
                            (positions, state.head(), false)
                        }
                        ReadStream::Rest(positions, token) => (positions, token, true),
                    };
                    if begun && positions.len() == 0 {
                        return Ok(None);
                    }
                    let mut events = Vec::with_capacity(positions.len().min(BATCH_EVENTS_MAX));
                    let next = positions.by_ref().take(BATCH_EVENTS_MAX);
                    // Events may have been erased since they were selected.
                    let shown = next.filter_map(|position| state.event(position));
                    let shown = shown.filter(|event| !state.is_erased(event));
                    events.extend(shown.cloned());
                    let batch = ReadBatch {
                        events,
                        token: token.into(),
                    };
                    Ok(Some((batch, ReadStream::Rest(positions, token))))
                }
            },
        ))
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        let shared = Arc::clone(&self.shared);
        let waiting = self.shared.head.subscribe();
        let begin = (subscription, waiting);
        Box::pin(stream::try_unfold(
            begin,
            move |(mut subscription, mut waiting)| {
                let shared = Arc::clone(&shared);
                async move {
                    let after = subscription.after;
                    // An error means that the store is gone; `None` that it was closed. Both end the subscription.
                    let moved = waiting
                        .wait_for(|head| head.is_none_or(|head| head > after))
                        .await;
                    let closed = !moved.is_ok_and(|head| head.is_some());
                    let state = shared.lock();
                    if closed && state.head() <= after {
                        return Ok(None);
                    }
                    let (events, through) = deliver(&state, &subscription);
                    subscription.after = through;
                    let caught_up = through == state.head();
                    drop(state);
                    Ok(Some((
                        Delivery {
                            events,
                            through,
                            caught_up,
                        },
                        (subscription, waiting),
                    )))
                }
            },
        ))
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        Box::pin(async { Ok(self.shared.lock().head()) })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async {
            if self.shared.lock().closed {
                return Err(ReadError::Unavailable {
                    cause: Arc::new(Closed),
                });
            }
            Ok(())
        })
    }

    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        let shared = Arc::clone(&self.shared);
        let remaining = list.limit.unwrap_or(u64::MAX);
        Box::pin(stream::try_unfold(
            (list, remaining),
            move |(mut list, remaining)| {
                let shared = Arc::clone(&shared);
                async move {
                    let state = shared.lock();
                    let wanted = usize::try_from(remaining)
                        .unwrap_or(usize::MAX)
                        .min(BATCH_STREAMS_MAX);
                    let infos = list_streams(&state, &list, wanted);
                    let Some(last) = infos.last() else {
                        return Ok(None);
                    };
                    list.after = Some(last.stream.clone());
                    let remaining = remaining - infos.len() as u64;
                    Ok(Some((infos, (list, remaining))))
                }
            },
        ))
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        Box::pin(async {
            let state = self.shared.lock();
            let streams = ("streams".into(), state.streams.len().to_string());
            Ok(StoreStats {
                events: state.head().get(),
                head: state.head(),
                details: vec![streams],
            })
        })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(false, RECENT_IDS as u64)
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::clone(&self.shared.snapshots) as Arc<dyn SnapshotStore>
    }

    fn consumers(&self) -> Arc<dyn Consumers> {
        Arc::clone(&self.shared.consumers) as Arc<dyn Consumers>
    }

    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(async {
            self.shared.lock().closed = true;
            self.shared.head.send_replace(None);
            Ok(())
        })
    }

    fn current(&self, stream: StreamName) -> BoxFuture<'_, Result<CurrentRevision, ReadError>> {
        Box::pin(async move { Ok(self.shared.lock().current(&stream)) })
    }

    fn entries(&self, after: Position) -> BoxStream<'static, Result<Vec<LogEntry>, ReadError>> {
        let shared = Arc::clone(&self.shared);
        let begin = (after, None);
        Box::pin(stream::try_unfold(begin, move |(after, head)| {
            let shared = Arc::clone(&shared);
            async move {
                let state = shared.lock();
                let head = head.unwrap_or_else(|| state.head());
                let entries = state.entries(after, head);
                let last = entries.last().map(LogEntry::position);
                Ok(last.map(|last| (entries, (last, Some(head)))))
            }
        }))
    }

    fn erase(
        &self,
        truncations: Vec<Truncation>,
        _bytes_per_second: Option<u64>,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(stream::once(async move {
            let mut state = shared.lock();
            let erased = truncations.iter().map(|truncation| state.erase(truncation));
            let (events, bytes) = erased.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
            Ok(ScavengeProgress {
                finished: true,
                ..ScavengeProgress::of(1, 1, events, bytes)
            })
        }))
    }

    fn is_exclusive(&self) -> bool {
        true
    }
}

enum ReadStream {
    NotBegun(Read),
    Rest(std::vec::IntoIter<Position>, Position),
}

/// The store was closed.
#[derive(Debug, thiserror::Error)]
#[error("store is closed")]
struct Closed;
