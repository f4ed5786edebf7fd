//! Many tasks on one account, through restarts and failures.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::{future::BoxFuture, stream::BoxStream};
use leftfold::{
    Store,
    model::{Append, Appended, EventType, ExpectedRevision, NewEvent, Position, Read, StreamName},
    stores::{
        AppendError, Capabilities, Delete, Delivery, EmbeddedStore, EventStore, ListStreams,
        LogOptions, ReadBatch, ReadError, Scavenge, ScavengeProgress, SnapshotStore, StoreStats,
        StreamInfo, StreamState, Subscription,
    },
};

use crate::account::{AccountEvent, BankAccount};

/// The embedded store, whose appends now and then meet a rival or lose their answer.
#[derive(Debug)]
struct Rough {
    inner: EmbeddedStore,
    appends: AtomicU64,
    /// What rivals deposited.
    rivals: Arc<AtomicU64>,
}

impl EventStore for Rough {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            match self.appends.fetch_add(1, Ordering::Relaxed) % 7 {
                2 => {
                    let event = EventType::new("DepositMade").unwrap();
                    let rival = NewEvent::json(event, r#"{"amount":1000000}"#);
                    let stream = append.writes()[0].stream.clone();
                    let rival = Append::to(stream, ExpectedRevision::Any, vec![rival]).unwrap();
                    self.inner.append(rival).await?;
                    self.rivals.fetch_add(1_000_000, Ordering::Relaxed);
                    self.inner.append(append).await
                }
                5 => {
                    let _ = self.inner.append(append).await;
                    Err(AppendError::OutcomeUnknown {
                        cause: Arc::new(std::io::Error::other("injected")),
                    })
                }
                _ => self.inner.append(append).await,
            }
        })
    }
    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        self.inner.read(read)
    }
    fn subscribe(&self, from: Subscription) -> BoxStream<'static, Result<Delivery, ReadError>> {
        self.inner.subscribe(from)
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_tasks_on_one_account_are_applied_exactly_once_through_restarts_and_conflicts() {
    let directory = tempfile::tempdir().unwrap();
    let rivals = Arc::new(AtomicU64::new(0));
    let mut applied = Vec::new();
    for round in 0..3 {
        let rough = Rough {
            inner: EmbeddedStore::open(directory.path(), LogOptions::default())
                .await
                .unwrap(),
            appends: AtomicU64::new(round),
            rivals: Arc::clone(&rivals),
        };
        let store = Store::new(rough);
        let accounts = store
            .repository::<BankAccount>()
            .with_attempts(10_000)
            .with_snapshots();
        let tasks: Vec<_> = (1..=64)
            .map(|amount| {
                let accounts = accounts.clone();
                tokio::spawn(async move {
                    let deposit = accounts.execute("1", |account| account.deposit(amount));
                    deposit.await.unwrap()
                })
            })
            .collect();
        for task in tasks {
            let committed = task.await.unwrap();
            let [AccountEvent::DepositMade { amount }] = committed.events[..] else {
                panic!("{committed:?}")
            };
            applied.push((committed.revision.unwrap(), amount));
        }
        store.close().await.unwrap();
    }
    applied.sort_unstable();
    assert!(
        applied.windows(2).all(|pair| pair[0].0 < pair[1].0),
        "one event for each command"
    );
    assert_eq!(applied.len(), 3 * 64);

    let store = Store::open(directory.path()).await.unwrap();
    let accounts = store.repository::<BankAccount>();
    let (folded, kept) = (
        accounts.load("1").await.unwrap(),
        accounts.with_snapshots().load("1").await.unwrap(),
    );
    let rivals = rivals.load(Ordering::Relaxed);
    assert!(rivals > 0, "there were conflicts");
    assert_eq!(folded.state().balance, 3 * 64 * 65 / 2 + rivals);
    assert_eq!(folded.event_count(), 3 * 64 + rivals / 1_000_000);
    assert_eq!(kept.state(), folded.state());
}
