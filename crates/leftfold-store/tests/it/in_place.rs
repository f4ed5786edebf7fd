//! Reads of the embedded store that nothing has to wait for.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use futures_util::TryStreamExt;
use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, Read, StreamName};
use leftfold_store::{EmbeddedStore, EventStore, LogOptions};
use tokio::task;

#[tokio::test(flavor = "current_thread")]
async fn a_task_that_only_reads_what_is_in_memory_lets_others_run() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path(), LogOptions::default());
    let store = store.await.unwrap();
    let stream = StreamName::new("account-1").unwrap();
    let event = NewEvent::json(EventType::new("DepositMade").unwrap(), "{}");
    let append = Append::to(stream.clone(), ExpectedRevision::Any, vec![event]).unwrap();
    store.append(append).await.unwrap();

    let turns = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&turns);
    let others = task::spawn(async move {
        loop {
            counted.fetch_add(1, Relaxed);
            task::yield_now().await;
        }
    });
    let read = async || {
        let batches = store.read(Read::stream(stream.clone()));
        let batches: Vec<_> = batches.try_collect().await.unwrap();
        assert_eq!(
            batches
                .iter()
                .map(|batch| batch.events.len())
                .sum::<usize>(),
            1
        );
    };
    // The first one opens files.
    read().await;
    let before = turns.load(Relaxed);
    for _ in 0..2_000 {
        read().await;
    }
    let between = turns.load(Relaxed) - before;
    others.abort();
    assert!(
        between >= 10,
        "{between} turns of others beside 2,000 reads"
    );
}
