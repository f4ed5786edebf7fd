//! Everything at once, for as long as `LEFTFOLD_SOAK_SECONDS` says; a few seconds unless it is set.
//!
//! **Owns:** the mixture: two processes' worth of writers, transactions that roll back, sessions that are ended, followers.
//! **Does not know:** which of them finds something.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use leftfold_model::ExpectedRevision::Any;
use leftfold_postgres::PostgresStore;

use crate::{
    fixtures::{dense, followed, surely, to},
    server::{fresh, server},
};

fn length() -> Duration {
    let seconds = std::env::var("LEFTFOLD_SOAK_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(4))
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_rollbacks_and_ended_sessions_leave_a_dense_log_that_followers_see_whole() {
    let options = fresh();
    let name = format!("soak {}", options.schema());
    let options = options.with_application_name(&name);
    let end = Instant::now() + length();
    let stores = [
        PostgresStore::open_with(options.clone()).await.unwrap(),
        PostgresStore::open_with(options).await.unwrap(),
    ];
    let mut writers = Vec::new();
    for writer in 0..6 {
        let store = stores[writer % 2].clone();
        writers.push(tokio::spawn(async move {
            let mut written = 0;
            while Instant::now() < end {
                surely(&store, &to(&format!("w-{writer}"), Any, "Written")).await;
                written += 1;
            }
            written
        }));
    }
    let undecided = tokio::spawn({
        let store = stores[0].clone();
        async move {
            while Instant::now() < end {
                let Ok(mut client) = store.connection().await else {
                    continue;
                };
                let Ok(transaction) = client.transaction().await else {
                    continue;
                };
                // Ended sessions may come first; what matters is that nothing of this stays.
                let _ = store
                    .append_in(&transaction, to("never", Any, "Never"))
                    .await;
                drop(transaction);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    let ended = tokio::task::spawn_blocking(move || {
        while Instant::now() < end {
            let sql = format!(
                "select count(pg_terminate_backend(pid)) from (select pid from pg_stat_activity \
                 where application_name = '{name}' order by random() limit 1) as one"
            );
            server().psql("postgres", &sql);
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    let mut written = 0;
    for writer in writers {
        written += writer.await.unwrap();
    }
    undecided.await.unwrap();
    ended.await.unwrap();
    let whole = Arc::new(dense(written));
    for store in &stores {
        assert_eq!(followed(store, written).await, *whole);
    }
    assert!(stores[0].verify().await.unwrap().findings.is_empty());
}
