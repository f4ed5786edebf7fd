//! A store that fails in the ways networks and disks do, for tests.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use futures_util::{
    StreamExt, TryStreamExt,
    future::{self, BoxFuture},
    stream::BoxStream,
};
use leftfold::{
    model::{
        Append, Appended, EventType, ExpectedRevision, NewEvent, Position, Read, Revision, Scope,
        StreamName,
    },
    stores::{
        AppendError, Capabilities, Delete, Delivery, EventStore, ListStreams, MemoryStore,
        ReadBatch, ReadError, Scavenge, ScavengeProgress, SnapshotStore, StoreStats, StreamInfo,
        StreamMetadata, StreamState, Subscription,
    },
};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// The append is stored, but the answer is lost.
    AnswerLost,
    /// The append is lost, and so is the answer.
    AppendLost,
    /// Someone else appends to the same stream first.
    Raced,
    /// The store is unavailable.
    Refused,
    /// The store refuses the append, and would again.
    Invalid,
    /// The older half of a stream is truncated and erased while it is read.
    Erased,
}

/// A store in memory whose first appends meet a fault.
#[derive(Debug, Clone)]
pub(crate) struct Faulty {
    pub(crate) inner: MemoryStore,
    fault: Fault,
    left: Arc<AtomicU32>,
}

impl Faulty {
    /// A store whose first `times` appends meet `fault`.
    pub(crate) fn new(fault: Fault, times: u32) -> Self {
        Self {
            inner: MemoryStore::new(),
            fault,
            left: Arc::new(AtomicU32::new(times)),
        }
    }
}

/// The fault as an error.
#[derive(Debug)]
struct Injected;
impl std::fmt::Display for Injected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("injected fault")
    }
}
impl std::error::Error for Injected {}

/// Truncates a stream in the middle and erases what is below.
async fn erase_half(store: &MemoryStore, stream: &StreamName) {
    let state = store.stream_state(stream.clone()).await.unwrap();
    let middle = Revision::new(state.last.unwrap().get() / 2);
    let metadata = StreamMetadata::default().with_truncate_before(middle);
    let append = metadata.append_for(stream, ExpectedRevision::Any).unwrap();
    store.append(append).await.unwrap();
    let steps = store.scavenge(Scavenge::default());
    steps.try_for_each(|_| future::ok(())).await.unwrap();
}

fn rival(stream: StreamName) -> Append {
    let deposit = NewEvent::json(EventType::new("DepositMade").unwrap(), r#"{"amount":1000}"#);
    Append::to(stream, ExpectedRevision::Any, vec![deposit]).unwrap()
}

impl EventStore for Faulty {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            let due = self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                })
                .is_ok();
            let unknown = || AppendError::OutcomeUnknown {
                cause: Arc::new(Injected),
            };
            match self.fault {
                Fault::AnswerLost if due => {
                    self.inner.append(append).await?;
                    Err(unknown())
                }
                Fault::AppendLost if due => Err(unknown()),
                Fault::Refused if due => Err(AppendError::Unavailable {
                    cause: Arc::new(Injected),
                }),
                Fault::Invalid if due => Err(AppendError::Invalid {
                    reason: "a rule of the store".to_owned(),
                }),
                Fault::Raced if due => {
                    self.inner
                        .append(rival(append.writes()[0].stream.clone()))
                        .await?;
                    self.inner.append(append).await
                }
                _ => self.inner.append(append).await,
            }
        })
    }
    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        let (scope, batches) = (read.scope.clone(), self.inner.read(read));
        let (Fault::Erased, Scope::Stream(stream)) = (self.fault, scope) else {
            return batches;
        };
        let (store, left) = (self.inner.clone(), Arc::clone(&self.left));
        let meanwhile = batches.then(move |batch| {
            let (store, stream, left) = (store.clone(), stream.clone(), Arc::clone(&left));
            async move {
                let due = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                });
                if due.is_ok() {
                    erase_half(&store, &stream).await;
                }
                batch
            }
        });
        Box::pin(meanwhile)
    }
    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        self.inner.subscribe(subscription)
    }
    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.inner.head()
    }
    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        self.inner.streams(list)
    }
    fn stream_state(&self, stream: StreamName) -> BoxFuture<'_, Result<StreamState, ReadError>> {
        self.inner.stream_state(stream)
    }
    fn delete(&self, delete: Delete) -> BoxFuture<'_, Result<Appended, AppendError>> {
        self.inner.delete(delete)
    }
    fn scavenge(&self, run: Scavenge) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        self.inner.scavenge(run)
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
    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        self.inner.close()
    }
}
