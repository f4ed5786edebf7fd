//! A database that was restored to an earlier state under open stores.
//!
//! **Owns:** the fixture. **Does not know:** the rules.

use std::{sync::Arc, time::Duration};

use leftfold_mongodb::MongoStore;
use leftfold_store::{
    EventStore,
    conformance::restored::{Restorable, RestorableFixture},
};
use mongodb::{
    Client, Collection,
    bson::{Document, doc},
};

use crate::server::{address, fresh};

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A store that stays open while its commits are taken away.
struct Database {
    commits: Collection<Document>,
    /// The number of the last commit of the backup.
    backed_up: i64,
    store: MongoStore,
}

impl Restorable for Database {
    fn store(&self) -> Arc<dyn EventStore> {
        Arc::new(self.store.clone())
    }

    async fn back_up(&mut self) {
        let newest = self.commits.find_one(doc! {}).sort(doc! { "_id": -1 });
        let newest = newest.await.unwrap().unwrap();
        self.backed_up = newest.get_i64("_id").unwrap();
    }

    async fn restore(&mut self) {
        let later = doc! { "_id": { "$gt": self.backed_up } };
        self.commits.delete_many(later).await.unwrap();
        // A restore takes longer than the store believes that its newest commit is still there.
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

struct Databases;

impl RestorableFixture for Databases {
    async fn open(&self) -> impl Restorable {
        let options = fresh()
            .with_poll_interval(POLL_INTERVAL)
            .with_reconnect_timeout(Duration::from_millis(300));
        let client = Client::with_uri_str(address()).await.unwrap();
        let commits = client.database(options.database()).collection("commits");
        Database {
            commits,
            backed_up: 0,
            store: MongoStore::open_with(options).await.unwrap(),
        }
    }
}

leftfold_store::restored_conformance!(database, Databases);
