//! A server whose directory was restored to an earlier state under open clients.
//!
//! **Owns:** the fixture. **Does not know:** the rules.

use std::sync::Arc;

use leftfold_client::Client;
use leftfold_store::{
    EventStore,
    conformance::restored::{Restorable, RestorableFixture},
};
use tempfile::TempDir;

use crate::running::Running;

/// A client that stays open while its server is stopped, gets an earlier directory, and comes back.
struct Restarted {
    running: Running,
    copy: Option<TempDir>,
    client: Client,
}

impl Restorable for Restarted {
    fn store(&self) -> Arc<dyn EventStore> {
        Arc::new(self.client.clone())
    }

    async fn back_up(&mut self) {
        self.running.stop().await;
        self.copy = Some(self.running.back_up());
        self.running.go_on().await;
    }

    async fn restore(&mut self) {
        self.running.stop().await;
        self.running.restore(self.copy.take().unwrap());
        self.running.go_on().await;
    }
}

struct Servers;

impl RestorableFixture for Servers {
    async fn open(&self) -> impl Restorable {
        let running = Running::start().await;
        let client = running.client().await;
        Restarted {
            running,
            copy: None,
            client,
        }
    }
}

leftfold_store::restored_conformance!(server, Servers);
