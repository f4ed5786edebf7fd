//! Rights over a database that lost the end of its log, as in a failover.
//!
//! **Owns:** which rights are in force then. **Does not know:** how the log is followed.

use std::{sync::Arc, time::Duration};

use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, StreamName};
use leftfold_postgres::{PostgresStore, testing};
use leftfold_server::access::{AccessAdmin, UserInfo};
use leftfold_store::EventStore;

/// A database, and what changes it.
struct Database {
    postgres: testing::Server,
    address: String,
}

impl Database {
    fn start() -> Self {
        let postgres = testing::Server::start();
        let address = postgres.database();
        Self { postgres, address }
    }

    /// A program that knows the rights, and its store.
    async fn program(&self) -> (AccessAdmin, Arc<PostgresStore>) {
        let store = Arc::new(PostgresStore::open(&self.address).await.unwrap());
        let admin = AccessAdmin::open(store.clone()).await.unwrap();
        (admin, store)
    }

    fn lose_events_after(&self, position: u64) {
        let name = self.address.rsplit('/').next().unwrap();
        let lose = format!(
            "alter table leftfold.events disable trigger all; \
             delete from leftfold.events where position > {position}; \
             alter table leftfold.events enable trigger all"
        );
        self.postgres.psql(name, &lose);
    }
}

async fn append_notes(store: &dyn EventStore, count: usize) {
    let note = || NewEvent::json(EventType::new("Noted").unwrap(), "{}");
    let events = (0..count).map(|_| note()).collect();
    let stream = StreamName::new("notes-1").unwrap();
    let append = Append::to(stream, ExpectedRevision::Any, events).unwrap();
    store.append(append).await.unwrap();
}

async fn until_ann(admin: &AccessAdmin, is_so: impl Fn(&UserInfo) -> bool) {
    let seen = async {
        while !admin
            .users()
            .iter()
            .any(|it| it.login == "ann" && is_so(it))
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(30), seen).await;
    seen.unwrap_or_else(|_| panic!("ann stays {:?}", admin.users()));
}

/// A change may stand where another one was lost, by its position and by its revision.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_disabled_after_a_failover_is_disabled_for_every_program() {
    for appended in [1, 20] {
        let database = Database::start();
        let (here, store) = database.program().await;
        here.create_user("ann", "correct horse", "Ann", vec![])
            .await
            .unwrap();
        append_notes(&*store, 8).await;
        let (there, _there) = database.program().await;
        there.set_groups("ann", vec!["lost".into()]).await.unwrap();
        until_ann(&here, |ann| ann.groups == ["lost"]).await;

        database.lose_events_after(1);
        let (after, store) = database.program().await;
        after.set_user_disabled("ann", true).await.unwrap();
        append_notes(&*store, appended).await;
        until_ann(&here, |ann| ann.disabled && ann.groups.is_empty()).await;
    }
}
