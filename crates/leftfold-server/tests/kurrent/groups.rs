//! Groups of competing consumers, as clients of this wire create, join and watch them.
//!
//! **Owns:** the rules of `PersistentSubscriptions`. **Does not know:** how a group shares its events; its model test does.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{FutureExt, StreamExt};
use leftfold_proto::{
    event_store::client::{
        Empty, Uuid,
        persistent_subscriptions::{
            Settings, SubscriptionInfo, all_options::FilterOption, read_req::nack::Action, settings,
        },
        streams::{
            read_req::options::{FilterOptions, filter_options},
            read_resp::Content,
        },
        uuid::Value,
    },
    umadb::v1::{self as umadb, dcb_client::DcbClient},
};
use leftfold_store::{
    EventStore, MemoryStore, Subscription,
    consumers::{ClaimRequest, ConsumerName},
};
use tonic::Code;

use crate::{
    client::{TestClient, code_and_trailer, event, of_stream, read},
    group_client::{Groups, defaults},
    test_server::TestServer,
};

#[tokio::test]
async fn a_group_is_created_once_and_each_error_has_the_trailers_of_its_kind() {
    let server = TestServer::start().await;
    let groups = Groups::new(&server).await;
    groups.create("a", "g", defaults()).await.unwrap();
    let again = groups.create("a", "g", defaults()).await.unwrap_err();
    let exists = (Code::AlreadyExists, Some("persistent-subscription-exists"));
    assert_eq!(code_and_trailer(&again, "exception"), exists);
    assert_eq!(code_and_trailer(&again, "stream-name").1, Some("a"));
    assert_eq!(code_and_trailer(&again, "group-name").1, Some("g"));
    let missing = (
        Code::NotFound,
        Some("persistent-subscription-does-not-exist"),
    );
    let refused = [
        groups.update("a", "other", defaults()).await.unwrap_err(),
        groups.delete("a", "other").await.unwrap_err(),
        groups.info("b", "g").await.unwrap_err(),
        groups.list(Some("b")).await.unwrap_err(),
        groups.replay("a", "other", None).await.unwrap_err(),
        groups
            .join(Some("a"), "other", 10)
            .await
            .map(drop)
            .unwrap_err(),
    ];
    for status in refused {
        assert_eq!(
            code_and_trailer(&status, "exception"),
            missing,
            "{status:?}"
        );
    }
    let bad = [
        Settings {
            consumer_strategy: "Fastest".into(),
            ..defaults()
        },
        Settings {
            read_batch_size: 500,
            ..defaults()
        },
        Settings {
            max_retry_count: -1,
            ..defaults()
        },
    ];
    for settings in bad {
        let failed = groups.create("a", "bad", settings).await.unwrap_err();
        let expected = (Code::Internal, Some("persistent-subscription-failed"));
        assert_eq!(code_and_trailer(&failed, "exception"), expected);
        assert!(
            code_and_trailer(&failed, "reason")
                .1
                .unwrap()
                .contains("expected")
        );
    }
    assert_eq!(groups.list(None).await.unwrap(), ["a::g"]);
    groups.delete("a", "g").await.unwrap();
    assert!(groups.list(None).await.unwrap().is_empty());
    server.stop().await;
}

#[tokio::test]
async fn settings_come_back_as_they_were_given_and_an_update_drops_no_consumer() {
    let server = TestServer::start().await;
    let (client, groups) = (TestClient::new(&server).await, Groups::new(&server).await);
    client.put("a", &["One"]).await;
    groups.create("a", "g", defaults()).await.unwrap();
    let info = groups.info("a", "g").await.unwrap();
    assert_eq!((&*info.status, &*info.start_from), ("Behind", "0"));
    assert_eq!(info.last_checkpointed_event_position, "");
    assert_eq!(info.last_known_event_position, "0");
    let mut consumer = groups.join(Some("a"), "g", 10).await.unwrap();
    let first = consumer.next().await.unwrap();
    let changed = Settings {
        max_retry_count: 7,
        max_subscriber_count: 1,
        extra_statistics: true,
        consumer_strategy: "Pinned".into(),
        message_timeout: Some(settings::MessageTimeout::MessageTimeoutTicks(120_000_000)),
        ..defaults()
    };
    groups.update("a", "g", changed).await.unwrap();
    let info = groups.info("a", "g").await.unwrap();
    assert_eq!(info.max_retry_count, 7);
    assert_eq!(info.message_timeout_milliseconds, 12_000);
    assert_eq!(info.named_consumer_strategy, "Pinned");
    assert_eq!((info.buffer_size, info.live_buffer_size), (500, 500));
    assert_eq!(info.connections.len(), 1, "the consumer is still there");
    assert_eq!(info.connections[0].in_flight_messages, 1);
    consumer.ack(&first);
    client.put("a", &["Two"]).await;
    assert_eq!(consumer.next().await.unwrap().revision, 1);
    let full = loop {
        // The change is on its way to the group that runs.
        match groups.join(Some("a"), "g", 10).await {
            Err(full) => break full,
            Ok(_) => tokio::task::yield_now().await,
        }
    };
    let expected = (
        Code::FailedPrecondition,
        Some("maximum-subscribers-reached"),
    );
    assert_eq!(code_and_trailer(&full, "exception"), expected);
    assert!(full.message().starts_with("Maximum subscriptions reached"));
    server.stop().await;
}

#[tokio::test]
async fn consumers_share_the_events_and_a_group_goes_on_where_it_was() {
    let server = TestServer::start().await;
    let (client, groups) = (TestClient::new(&server).await, Groups::new(&server).await);
    groups.create("a", "g", defaults()).await.unwrap();
    let mut one = groups.join(Some("a"), "g", 2).await.unwrap();
    let mut two = groups.join(Some("a"), "g", 2).await.unwrap();
    client.put("a", &["E"; 20]).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 20 {
        let (event, consumer) = tokio::select! {
            event = one.next() => (event.unwrap(), &one),
            event = two.next() => (event.unwrap(), &two),
        };
        assert!(seen.insert(event.revision), "{event:?} came twice");
        consumer.ack(&event);
    }
    let done = |info: &SubscriptionInfo| info.last_checkpointed_event_position == "19";
    let info = groups.info_when(("a", "g"), done).await;
    assert_eq!((info.connections.len(), info.total_items), (2, 20));
    assert_eq!(info.status, "Live");
    drop((one, two));
    client.put("a", &["E"]).await;
    let mut next = groups.join(Some("a"), "g", 2).await.unwrap();
    assert_eq!(next.next().await.unwrap().revision, 20);
    server.stop().await;
}

#[tokio::test]
async fn an_event_is_retried_parked_seen_and_replayed() {
    let server = TestServer::start().await;
    let (client, groups) = (TestClient::new(&server).await, Groups::new(&server).await);
    groups.create("a", "g", defaults()).await.unwrap();
    client.put("a", &["Poison", "Good", "Bad"]).await;
    let mut consumer = groups.join(Some("a"), "g", 1).await.unwrap();
    for retries in 0..=2 {
        let event = consumer.next().await.unwrap();
        assert_eq!((event.revision, event.retries), (0, retries));
        consumer.nack(&event, Action::Retry, "cannot be handled");
    }
    let good = consumer.next().await.unwrap();
    assert_eq!(good.revision, 1);
    consumer.ack(&good);
    let bad = consumer.next().await.unwrap();
    consumer.nack(&bad, Action::Park, "bad");
    let parked = |info: &SubscriptionInfo| info.parked_message_count == 2;
    let info = groups.info_when(("a", "g"), parked).await;
    assert_eq!(info.last_checkpointed_event_position, "2");
    groups.replay("a", "g", Some(1)).await.unwrap();
    let again = consumer.next().await.unwrap();
    assert_eq!((again.revision, again.retries), (0, 0));
    consumer.ack(&again);
    groups
        .info_when(("a", "g"), |info| info.parked_message_count == 1)
        .await;
    groups.replay("a", "g", None).await.unwrap();
    let again = consumer.next().await.unwrap();
    assert_eq!(again.revision, 2);
    consumer.nack(&again, Action::Skip, "");
    groups
        .info_when(("a", "g"), |info| info.parked_message_count == 0)
        .await;
    server.stop().await;
}

#[tokio::test]
async fn a_consumer_that_dies_of_an_event_does_not_die_of_it_for_ever() {
    let server = TestServer::start().await;
    let (client, groups) = (TestClient::new(&server).await, Groups::new(&server).await);
    groups.create("a", "g", defaults()).await.unwrap();
    client.put("a", &["Poison", "Good"]).await;
    for _ in 0..3 {
        let mut consumer = groups.join(Some("a"), "g", 10).await.unwrap();
        assert_eq!(consumer.next().await.unwrap().revision, 0);
        drop(consumer);
        groups
            .info_when(("a", "g"), |info| info.connections.is_empty())
            .await;
    }
    let mut consumer = groups.join(Some("a"), "g", 10).await.unwrap();
    let good = consumer.next().await.unwrap();
    assert_eq!((good.revision, good.retries), (1, 0));
    consumer.ack(&good);
    let settled = |info: &SubscriptionInfo| info.last_checkpointed_event_position == "1";
    let info = groups.info_when(("a", "g"), settled).await;
    assert_eq!(info.parked_message_count, 1);
    server.stop().await;
}

#[tokio::test]
async fn deleting_a_group_restarting_all_and_stopping_end_consumers_with_a_word() {
    let server = TestServer::start().await;
    let (client, groups) = (TestClient::new(&server).await, Groups::new(&server).await);
    client.put("a", &["One"]).await;
    for group in ["deleted", "restarted", "stopped"] {
        groups.create("a", group, defaults()).await.unwrap();
    }
    let dropped = (Code::Cancelled, Some("persistent-subscription-dropped"));
    let mut consumer = groups.join(Some("a"), "deleted", 10).await.unwrap();
    consumer.next().await.unwrap();
    groups.delete("a", "deleted").await.unwrap();
    assert_eq!(
        code_and_trailer(&consumer.end().await, "exception"),
        dropped
    );
    // Another group of that name begins anew.
    groups.create("a", "deleted", defaults()).await.unwrap();
    let mut consumer = groups.join(Some("a"), "deleted", 10).await.unwrap();
    assert_eq!(consumer.next().await.unwrap().revision, 0);
    groups.0.clone().restart_subsystem(Empty {}).await.unwrap();
    assert_eq!(
        code_and_trailer(&consumer.end().await, "exception"),
        dropped
    );
    let mut consumer = groups.join(Some("a"), "restarted", 10).await.unwrap();
    let event = consumer.next().await.unwrap();
    consumer.nack(&event, Action::Stop, "enough");
    assert_eq!(
        code_and_trailer(&consumer.end().await, "exception"),
        dropped
    );
    let consumer = groups.join(Some("a"), "stopped", 10).await.unwrap();
    let (end, ()) = tokio::join!(consumer.end(), server.stop());
    assert_eq!(end.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_group_of_everything_takes_what_its_filter_lets_pass() {
    let server = TestServer::start().await;
    let (client, groups) = (TestClient::new(&server).await, Groups::new(&server).await);
    client.put("account-1", &["One"]).await;
    client.put("order-1", &["One"]).await;
    client.put("account-2", &["One"]).await;
    let filter = FilterOption::Filter(FilterOptions {
        filter: Some(filter_options::Filter::StreamIdentifier(
            filter_options::Expression {
                regex: "^account-".into(),
                prefix: Vec::new(),
            },
        )),
        window: Some(filter_options::Window::Max(32)),
        checkpoint_interval_multiplier: 1,
    });
    groups.create_of_all("some", filter).await.unwrap();
    groups
        .create_of_all("all", FilterOption::NoFilter(Empty {}))
        .await
        .unwrap();
    let mut consumer = groups.join(None, "some", 10).await.unwrap();
    assert_eq!(consumer.next().await.unwrap().stream, "account-1");
    assert_eq!(consumer.next().await.unwrap().stream, "account-2");
    let mut consumer = groups.join(None, "all", 10).await.unwrap();
    for stream in ["account-1", "order-1", "account-2"] {
        assert_eq!(consumer.next().await.unwrap().stream, stream);
    }
    client.put("order-2", &["One"]).await;
    // The definitions of both groups stand before it in the log and are not delivered.
    assert_eq!(consumer.next().await.unwrap().stream, "order-2");
    server.stop().await;
}

#[tokio::test]
async fn operators_see_who_consumes_a_group_and_from_where() {
    let server = TestServer::start().await;
    let groups = Groups::new(&server).await;
    groups.create("a", "g", defaults()).await.unwrap();
    let consumer = groups.join(Some("a"), "g", 7).await.unwrap();
    let info = groups.info("a", "g").await.unwrap();
    let connection = &info.connections[0];
    assert_eq!((info.connections.len(), connection.available_slots), (1, 7));
    assert_eq!(connection.username, "anonymous");
    let from: std::net::SocketAddr = connection.from.parse().unwrap();
    assert!(from.ip().is_loopback() && from.port() != 0);
    assert!(connection.observed_measurements.is_empty());
    drop(consumer);
    server.stop().await;
}

#[tokio::test]
async fn extra_statistics_measure_what_consumers_take() {
    let server = TestServer::start().await;
    let (client, groups) = (TestClient::new(&server).await, Groups::new(&server).await);
    let measured = Settings {
        extra_statistics: true,
        ..defaults()
    };
    groups.create("a", "g", measured).await.unwrap();
    client.put("a", &["E"; 3]).await;
    let mut consumer = groups.join(Some("a"), "g", 10).await.unwrap();
    for _ in 0..2 {
        let event = consumer.next().await.unwrap();
        consumer.ack(&event);
    }
    consumer.next().await.unwrap();
    let taken = |info: &SubscriptionInfo| info.total_in_flight_messages == 1;
    let info = groups.info_when(("a", "g"), taken).await;
    let connection = &info.connections[0];
    assert_eq!((info.total_items, connection.total_items), (3, 3));
    assert_eq!(
        (connection.in_flight_messages, connection.available_slots),
        (1, 9)
    );
    assert_eq!(info.outstanding_messages_count, 1);
    let names = connection.observed_measurements.iter();
    let names: Vec<_> = names.map(|measured| measured.key.as_str()).collect();
    for name in [
        "Mean",
        "Median",
        "Fastest",
        "Quintile 5",
        "99.9%",
        "Highest",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn checkpoints_and_parking_wake_no_reader_and_feed_no_group() {
    let server = TestServer::start().await;
    let (client, groups) = (TestClient::new(&server).await, Groups::new(&server).await);
    groups
        .create_of_all("all", FilterOption::NoFilter(Empty {}))
        .await
        .unwrap();
    client.put("a", &["E"; 20]).await;
    let head = server.store.head().await.unwrap();
    let mut consumer = groups.join(None, "all", 10).await.unwrap();
    let mut deliveries = server.store.subscribe(Subscription::after(head));
    let first = deliveries.next().await.unwrap().unwrap();
    assert!(first.events.is_empty() && first.caught_up);
    for number in 0..20 {
        let event = consumer.next().await.unwrap();
        match number % 5 {
            0 => consumer.nack(&event, Action::Park, "set aside"),
            _ => consumer.ack(&event),
        }
    }
    let all = ConsumerName::new("$persistentsubscription-$all::all#0").unwrap();
    let consumers = server.store.consumers();
    loop {
        let status = consumers.status(&all).await.unwrap().unwrap();
        if status.position == head && status.parked == 4 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(
        server.store.head().await.unwrap(),
        head,
        "nothing was appended"
    );
    assert!(consumer.answers.next().now_or_never().is_none());
    assert!(deliveries.next().now_or_never().is_none());
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_does_not_own_a_group_names_the_one_that_does() {
    let owner = TestServer::start().await;
    let other = TestServer::new(std::sync::Arc::clone(&owner.store), &[]).await;
    let (here, there) = (Groups::new(&owner).await, Groups::new(&other).await);
    here.create("a", "g", defaults()).await.unwrap();
    let _consumer = here.join(Some("a"), "g", 10).await.unwrap();
    let not_leader = (Code::NotFound, Some("not-leader"));
    let port = owner.address().rsplit(':').next();
    for elsewhere in [
        there.join(Some("a"), "g", 10).await.map(drop).unwrap_err(),
        there.info_of_leader("a", "g").await.unwrap_err(),
    ] {
        assert_eq!(code_and_trailer(&elsewhere, "exception"), not_leader);
        assert_eq!(elsewhere.message(), "Leader info available");
        assert_eq!(code_and_trailer(&elsewhere, "leader-endpoint-port").1, port);
    }
    assert!(here.info_of_leader("a", "g").await.is_ok());
    // A client that takes any server learns what is in the store.
    let info = there.info("a", "g").await.unwrap();
    assert!(info.connections.is_empty());
}

#[tokio::test]
async fn two_servers_that_clients_cannot_tell_apart_are_refused_by_name() {
    let store: std::sync::Arc<dyn EventStore> = std::sync::Arc::new(MemoryStore::new());
    let group = "$persistentsubscription-a::g#0";
    let server = TestServer::new(std::sync::Arc::clone(&store), &[]).await;
    let groups = Groups::new(&server).await;
    groups.create("a", "g", defaults()).await.unwrap();
    let holder = format!("{} {} 1", server.address(), uuid::Uuid::new_v4().simple());
    let consumers = store.consumers();
    let ttl = Duration::from_secs(3_600);
    let name = ConsumerName::new(group).unwrap();
    let request = ClaimRequest::new(name, holder, ttl);
    let claim = consumers.claim(&request).await.unwrap();
    // The other server renews its claim while this one waits for the end of it.
    let renewing = async {
        for more in 1.. {
            let longer = ttl + Duration::from_secs(more);
            consumers.renew(&claim, longer).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let joining = groups.join(Some("a"), "g", 10);
    let refused = tokio::select! {
        joined = joining => joined.map(drop).unwrap_err(),
        () = renewing => unreachable!("it renews until the join is refused"),
    };
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("advertised_host"), "{refused:?}");
    assert!(refused.message().contains(server.address()));
    server.stop().await;
}

#[tokio::test]
async fn two_events_that_clients_gave_one_id_are_in_flight_under_two() {
    let server = TestServer::start().await;
    let (client, groups) = (TestClient::new(&server).await, Groups::new(&server).await);
    let twice = event("One");
    for stream in ["a-1", "a-2"] {
        let events = vec![twice.clone()];
        let appended = client.append(stream, crate::client::any(), events).await;
        crate::client::success(appended.unwrap());
    }
    groups
        .create_of_all("g", FilterOption::NoFilter(Empty {}))
        .await
        .unwrap();
    let mut consumer = groups.join(None, "g", 10).await.unwrap();
    let (first, second) = (
        consumer.next().await.unwrap(),
        consumer.next().await.unwrap(),
    );
    assert_ne!(first.id, second.id);
    let text = |id: &Uuid| matches!(id.value, Some(Value::String(_)));
    assert!(text(&first.id) && text(&second.id));
    consumer.nack(&second, Action::Retry, "again");
    let again = consumer.next().await.unwrap();
    assert_eq!((again.stream.as_str(), again.retries), ("a-2", 1));
    consumer.ack(&first);
    consumer.ack(&again);
    assert!(consumer.answers.next().now_or_never().is_none());
    server.stop().await;
}

#[tokio::test]
async fn a_group_of_a_category_gets_links_and_what_they_lead_to() {
    let server = TestServer::start().await;
    let (client, groups) = (TestClient::new(&server).await, Groups::new(&server).await);
    client.put("account-1", &["One"]).await;
    client.put("order-1", &["One"]).await;
    let resolving = Settings {
        resolve_links: true,
        ..defaults()
    };
    groups.create("$ce-account", "g", resolving).await.unwrap();
    let mut consumer = groups.join(Some("$ce-account"), "g", 10).await.unwrap();
    client.put("account-2", &["Two"]).await;
    for _ in 0..2 {
        let link = consumer.next().await.unwrap();
        assert_eq!(link.stream, "$ce-account");
        consumer.ack(&link);
    }
    let newest = groups.info("$ce-account", "g").await.unwrap();
    let newest = newest.last_known_event_position;
    let done = |info: &SubscriptionInfo| info.last_checkpointed_event_position == newest;
    groups.info_when(("$ce-account", "g"), done).await;
    let refused = groups.create("$idx-ce-account", "g", defaults()).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    server.stop().await;
}

#[tokio::test]
async fn events_that_another_client_gave_the_nil_id_are_acknowledged_by_one_of_their_own() {
    let server = TestServer::start().await;
    let event = umadb::Event {
        event_type: "Placed".into(),
        uuid: uuid::Uuid::nil().to_string(),
        ..umadb::Event::default()
    };
    let request = umadb::AppendRequest {
        events: vec![event.clone(), event],
        ..umadb::AppendRequest::default()
    };
    let mut other = DcbClient::new(server.connect().await);
    other.append(request).await.unwrap();
    let client = TestClient::new(&server).await;
    let shown = client.all(of_stream("default")).await;
    let shown = shown.iter().filter_map(|answer| match answer {
        Content::Event(event) => read(event).event.unwrap().id,
        _ => None,
    });
    let shown: Vec<_> = shown.collect();
    let groups = Groups::new(&server).await;
    groups.create("default", "g", defaults()).await.unwrap();
    let mut consumer = groups.join(Some("default"), "g", 10).await.unwrap();
    for id in shown {
        let got = consumer.next().await.unwrap();
        assert_eq!(got.id, id);
        assert!(
            !matches!(&id.value, Some(Value::String(id)) if *id == uuid::Uuid::nil().to_string())
        );
        consumer.ack(&got);
    }
    let done = |info: &SubscriptionInfo| info.last_checkpointed_event_position == "1";
    groups.info_when(("default", "g"), done).await;
    server.stop().await;
}
