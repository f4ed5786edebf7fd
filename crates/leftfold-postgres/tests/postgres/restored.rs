//! A server whose data was restored to an earlier state under open stores.
//!
//! **Owns:** the fixture. **Does not know:** the rules.

use std::{process::Command, sync::Arc, time::Duration};

use leftfold_postgres::{PostgresStore, testing::Server};
use leftfold_store::{
    EventStore,
    conformance::restored::{Restorable, RestorableFixture},
};

/// A store that stays open while its server is stopped, gets earlier data, and comes back.
struct Restarted {
    server: Server,
    store: PostgresStore,
}

impl Restarted {
    /// Runs shell commands in the directory of the stopped server.
    async fn while_stopped(&mut self, commands: &str) {
        tokio::task::block_in_place(|| {
            self.server.kill();
            let mut shell = Command::new("sh");
            shell.args(["-ec", commands]);
            let done = shell.current_dir(self.server.directory()).status();
            assert!(done.unwrap().success(), "{commands}");
            self.server.launch();
        });
        while self.store.head().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Restorable for Restarted {
    fn store(&self) -> Arc<dyn EventStore> {
        Arc::new(self.store.clone())
    }

    async fn back_up(&mut self) {
        self.while_stopped("cp -a data copy").await;
    }

    async fn restore(&mut self) {
        self.while_stopped("rm -r data; mv copy data").await;
    }
}

struct Servers;

impl RestorableFixture for Servers {
    async fn open(&self) -> impl Restorable {
        let server = tokio::task::block_in_place(Server::start);
        let store = PostgresStore::open(&server.database()).await.unwrap();
        Restarted { server, store }
    }
}

leftfold_store::restored_conformance!(server, Servers);
