//! Two servers over one PostgreSQL database, of which one acts for a group.
//!
//! **Owns:** the rules of ownership as clients meet them. **Does not know:** how claims are stored.
//! **Invariants:** no test waits for a claim to run out: it ends claims in the database.

use std::collections::BTreeSet;

use leftfold_postgres::{PostgresStore, testing::Server};
use leftfold_proto::event_store::client::persistent_subscriptions::{
    ReadReq, SubscriptionInfo,
    read_req::{self, Ack},
};
use tokio::runtime::Runtime;
use tonic::{Code, Status};

use crate::{
    client::{TestClient, code_and_trailer},
    group_client::{Consumer, Got, Groups, defaults},
    test_server::TestServer,
};

/// A database, and servers over it.
struct Database {
    postgres: Server,
    address: String,
}

impl Database {
    fn start() -> Self {
        let postgres = Server::start();
        let address = postgres.database();
        Self { postgres, address }
    }

    async fn server(&self) -> TestServer {
        serve(self.address.clone()).await
    }

    /// A server on a runtime of its own. It is killed when the runtime is shut down: its tasks end wherever they are.
    async fn killable_server(&self) -> (Runtime, TestServer) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.spawn(serve(self.address.clone())).await.unwrap();
        (runtime, server)
    }

    /// Ends all claims, as time does when they are not renewed.
    fn end_claims(&self) {
        let name = self.address.rsplit('/').next().unwrap();
        let end = "update leftfold.consumers set held_until = clock_timestamp() - interval '1 second' \
                   where holder is not null";
        self.postgres.psql(name, end);
    }
}

async fn serve(address: String) -> TestServer {
    let store = PostgresStore::open(&address).await.unwrap();
    TestServer::new(std::sync::Arc::new(store), &[]).await
}

/// Whether everything through this revision is done with.
fn checkpointed(revision: &'static str) -> impl Fn(&SubscriptionInfo) -> bool {
    move |info| info.last_checkpointed_event_position == revision
}

/// Sends an acknowledgement of a consumer whose call may have ended.
fn ack_late(consumer: &Consumer, event: &Got) {
    let ack = Ack {
        ids: vec![event.id.clone()],
        ..Ack::default()
    };
    let content = Some(read_req::Content::Ack(ack));
    // It fails only if the call has ended.
    let _ = consumer.say.send(ReadReq { content });
}

#[track_caller]
fn assert_sent_to(refused: &Status, server: &TestServer) {
    let not_leader = (Code::NotFound, Some("not-leader"));
    assert_eq!(
        code_and_trailer(refused, "exception"),
        not_leader,
        "{refused:?}"
    );
    let port = server.address().rsplit(':').next();
    assert_eq!(code_and_trailer(refused, "leader-endpoint-port").1, port);
    assert_eq!(
        code_and_trailer(refused, "leader-endpoint-host").1,
        Some("127.0.0.1")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_group_of_a_killed_server_goes_on_at_the_other_and_nothing_acknowledged_is_lost() {
    let database = Database::start();
    let (runtime, owner) = database.killable_server().await;
    let other = database.server().await;
    let (here, there) = (Groups::new(&owner).await, Groups::new(&other).await);
    here.create("a", "g", defaults()).await.unwrap();
    TestClient::new(&owner).await.put("a", &["E"; 200]).await;
    let mut consumer = here.join(Some("a"), "g", 10).await.unwrap();
    let refused = there.join(Some("a"), "g", 10).await.map(drop).unwrap_err();
    assert_sent_to(&refused, &owner);
    for _ in 0..40 {
        let event = consumer.next().await.unwrap();
        consumer.ack(&event);
    }
    here.info_when(("a", "g"), checkpointed("39")).await;
    // Some of these are acknowledged and some are in flight when the server is killed.
    let mut seen: BTreeSet<u64> = (0..40).collect();
    for number in 0..20 {
        let event = consumer.next().await.unwrap();
        seen.insert(event.revision);
        if number % 5 > 0 {
            consumer.ack(&event);
        }
    }
    runtime.shutdown_background();
    consumer.end().await;
    database.end_claims();
    let mut consumer = there.join(Some("a"), "g", 10).await.unwrap();
    while seen.len() < 200 {
        let event = consumer.next().await.unwrap();
        assert!(event.revision >= 40, "{event:?} was done with");
        assert_eq!(event.retries, 0, "{event:?}");
        seen.insert(event.revision);
        consumer.ack(&event);
    }
    let info = there.info_when(("a", "g"), checkpointed("199")).await;
    assert_eq!(info.parked_message_count, 0);
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loses_its_group_writes_nothing_more_and_sends_its_consumers_to_the_next() {
    let database = Database::start();
    let (owner, other) = (database.server().await, database.server().await);
    let (here, there) = (Groups::new(&owner).await, Groups::new(&other).await);
    here.create("a", "g", defaults()).await.unwrap();
    TestClient::new(&owner).await.put("a", &["E"; 10]).await;
    let mut consumer = here.join(Some("a"), "g", 5).await.unwrap();
    for _ in 0..5 {
        let event = consumer.next().await.unwrap();
        consumer.ack(&event);
    }
    here.info_when(("a", "g"), checkpointed("4")).await;
    let mut held = Vec::new();
    while held.len() < 5 {
        held.push(consumer.next().await.unwrap());
    }
    let mut successor = loop {
        database.end_claims();
        match there.join(Some("a"), "g", 5).await {
            Ok(joined) => break joined,
            // The owner renewed its claim in between.
            Err(refused) => assert_sent_to(&refused, &owner),
        }
    };
    for event in &held {
        ack_late(&consumer, event);
    }
    let ended = consumer.end().await;
    let dropped = (Code::Cancelled, Some("persistent-subscription-dropped"));
    assert_eq!(code_and_trailer(&ended, "exception"), dropped, "{ended:?}");
    let refused = here.join(Some("a"), "g", 5).await.map(drop).unwrap_err();
    assert_sent_to(&refused, &other);
    // What the loser was told after it had lost the group comes again.
    for revision in 5..10 {
        let event = successor.next().await.unwrap();
        assert_eq!((event.revision, event.retries), (revision, 0));
        successor.ack(&event);
    }
    let info = there.info_when(("a", "g"), checkpointed("9")).await;
    assert_eq!(info.parked_message_count, 0);
    let seen_elsewhere = here.info("a", "g").await.unwrap();
    assert_eq!(seen_elsewhere.last_checkpointed_event_position, "9");
    owner.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_gives_its_groups_to_the_other_at_once() {
    let database = Database::start();
    let (owner, other) = (database.server().await, database.server().await);
    let (here, there) = (Groups::new(&owner).await, Groups::new(&other).await);
    here.create("a", "g", defaults()).await.unwrap();
    TestClient::new(&owner).await.put("a", &["E"; 4]).await;
    let mut consumer = here.join(Some("a"), "g", 2).await.unwrap();
    for _ in 0..2 {
        let event = consumer.next().await.unwrap();
        consumer.ack(&event);
    }
    let (end, ()) = tokio::join!(consumer.end(), owner.stop());
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    let mut consumer = there.join(Some("a"), "g", 2).await.unwrap();
    let mut seen = BTreeSet::new();
    while !(seen.contains(&2) && seen.contains(&3)) {
        let event = consumer.next().await.unwrap();
        seen.insert(event.revision);
        consumer.ack(&event);
    }
    let info = there.info_when(("a", "g"), checkpointed("3")).await;
    assert_eq!(info.parked_message_count, 0);
    other.stop().await;
}
