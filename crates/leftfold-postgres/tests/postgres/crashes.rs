//! Sessions and servers that are killed while appends run.
//!
//! **Owns:** these tests. **Does not know:** the shared server; each story harms its own.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use leftfold_model::{Append, ExpectedRevision::Any};
use leftfold_postgres::{PostgresStore, testing::Server};
use leftfold_store::EventStore;

use crate::fixtures::{dense, followed, surely, to, until};

/// Writers that retry after every failure until the test stops them; each returns how many events it wrote.
struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<u64>>,
}

impl Writers {
    fn start(store: &PostgresStore, count: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..count).map(|writer| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut written = 0;
                while !stop.load(Ordering::Relaxed) {
                    let append: Append = to(&format!("w-{writer}"), Any, "Written");
                    surely(&store, &append).await;
                    written += 1;
                }
                written
            })
        });
        Self {
            tasks: tasks.collect(),
            stop,
        }
    }

    async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut written = 0;
        for task in self.tasks {
            written += task.await.unwrap();
        }
        written
    }
}

async fn beyond(store: &PostgresStore, count: u64) {
    let begin = store.head().await.unwrap().get();
    until(|| async { store.head().await.unwrap().get() >= begin + count }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_killed_in_the_middle_loses_and_doubles_nothing() {
    let server = Server::start();
    let store = PostgresStore::open(&server.database()).await.unwrap();
    let writers = Writers::start(&store, 4);
    for _ in 0..3 {
        beyond(&store, 50).await;
        let client = store.connection().await.unwrap();
        let sql = "select pid from pg_stat_activity where query like '%append(%' and pid <> pg_backend_pid() limit 1";
        if let Some(row) = client.query_opt(sql, &[]).await.unwrap() {
            server.kill_session(row.get(0));
        }
    }
    beyond(&store, 50).await;
    let written = writers.finish().await;
    assert_eq!(store.head().await.unwrap().get(), written);
    assert_eq!(followed(&store, written).await, dense(written));
    assert!(store.verify().await.unwrap().findings.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_the_middle_keeps_what_it_acknowledged_and_subscriptions_go_on() {
    let mut server = Server::start();
    let store = PostgresStore::open(&server.database()).await.unwrap();
    let writers = Writers::start(&store, 4);
    beyond(&store, 100).await;
    let follower = tokio::spawn({
        let store = store.clone();
        async move { followed(&store, 200).await }
    });
    let acknowledged = surely(&store, &to("kept", Any, "Kept")).await;
    let server = tokio::task::spawn_blocking(move || {
        server.kill();
        server.launch();
        server
    });
    let server = server.await.unwrap();
    beyond(&store, 100).await;
    let written = writers.finish().await + 1;
    assert!(acknowledged.last <= store.head().await.unwrap());
    assert_eq!(store.head().await.unwrap().get(), written);
    assert_eq!(followed(&store, written).await, dense(written));
    let seen = follower.await.unwrap();
    assert_eq!(seen, dense(seen.len() as u64));
    assert!(store.verify().await.unwrap().findings.is_empty());
    drop(server);
}
