//! What this server does not make is refused by its name, never answered as if it were empty.
//!
//! **Owns:** tests, those of secondary indexes included. **Does not know:** reads of streams that people write.

use leftfold_proto::{
    event_store::client::{
        Empty,
        streams::{
            append_req,
            read_req::{
                Options,
                options::{FilterOption, FilterOptions, filter_options},
            },
            read_resp::Content,
        },
    },
    leftfold::v1::{ReadRequest, Scope, SubscribeRequest, scope, store_client::StoreClient},
};
use tonic::{Code, Status};

use crate::{
    client::{
        TestClient, any, backwards, code_and_trailer, event, of_all, of_stream, subscribed,
        success, types,
    },
    group_client::{Groups, defaults},
    test_server::TestServer,
};

/// A read of everything, as clients ask for an index.
fn of_index(name: &str) -> Options {
    let expression = filter_options::Expression {
        regex: String::new(),
        prefix: vec![name.to_owned()],
    };
    let filter = FilterOptions {
        filter: Some(filter_options::Filter::StreamIdentifier(expression)),
        window: Some(filter_options::Window::Max(32)),
        checkpoint_interval_multiplier: 1,
    };
    Options {
        filter_option: Some(FilterOption::Filter(filter)),
        ..of_all()
    }
}

async fn refused(client: &TestClient, options: Options) -> Status {
    match client.read(options).await {
        Err(refused) => refused,
        Ok(mut answers) => match answers.message().await {
            Err(refused) => refused,
            Ok(answer) => panic!("answered: {answer:?}"),
        },
    }
}

#[tokio::test]
async fn an_index_that_is_read_by_a_filter_is_refused_as_a_stream_in_every_way_to_read() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    client.put("account-1", &["Opened"]).await;
    for options in [
        of_stream("$idx-ce-account"),
        subscribed(of_stream("$idx-ce-account")),
    ] {
        let refused = refused(&client, options).await;
        assert_eq!(
            code_and_trailer(&refused, "exception").1,
            Some("index-not-found")
        );
        assert!(refused.message().contains("$idx-ce-account"), "{refused:?}");
    }
    // Other names that nothing was written to are streams that do not exist.
    let answers = client.all(of_stream("$other")).await;
    assert!(matches!(answers[..], [Content::StreamNotFound(_)]));
    server.stop().await;
}

#[tokio::test]
async fn the_indexes_that_the_log_has_are_read_under_their_names() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    client.put("account-1", &["Opened", "Closed"]).await;
    client.put("account", &["Opened"]).await;
    client.put("other-1", &["Opened"]).await;
    client.put("accounts-2", &["Closed"]).await;
    client.put("$system-1", &["Opened", "$noted"]).await;
    let cases: &[(&str, &[&str])] = &[
        (
            "$idx-all",
            &["Opened", "Closed", "Opened", "Opened", "Closed"],
        ),
        ("$idx-ce-account", &["Opened", "Closed", "Opened"]),
        ("$idx-ce-none", &[]),
        ("$idx-et-Closed", &["Closed", "Closed"]),
        ("$idx-et-Opened", &["Opened", "Opened", "Opened"]),
    ];
    for (index, expected) in cases {
        assert_eq!(
            types(&client.all(of_index(index)).await),
            *expected,
            "{index}"
        );
    }
    let mut following = client
        .read(subscribed(of_index("$idx-et-Closed")))
        .await
        .unwrap();
    let mut seen = 0;
    while seen < 2 {
        let answer = following.message().await.unwrap().unwrap().content.unwrap();
        seen += usize::from(matches!(answer, Content::Event(_)));
    }
    client.put("account-9", &["Opened", "Closed"]).await;
    loop {
        let answer = following.message().await.unwrap().unwrap().content.unwrap();
        if matches!(answer, Content::Event(_)) {
            assert_eq!(types(&[answer]), ["Closed"]);
            break;
        }
    }
    drop(following);
    server.stop().await;
}

#[tokio::test]
async fn an_index_that_is_not_there_is_refused_by_name() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    for index in ["$idx-orders-by-country", "$idx-", "$idx-user-x"] {
        for options in [of_index(index), subscribed(of_index(index))] {
            let refused = refused(&client, options).await;
            assert_eq!(
                code_and_trailer(&refused, "exception"),
                (Code::NotFound, Some("index-not-found")),
                "{refused:?}"
            );
            assert_eq!(code_and_trailer(&refused, "index-name").1, Some(index));
        }
        let refused = refused(&client, of_stream(index)).await;
        assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
    }
    server.stop().await;
}

/// Streams that servers of these clients write by themselves, and this one does not.
const NOT_KEPT: [&str; 16] = [
    "$persistentsubscription-a::g-parked",
    "$persistentsubscription-a::g-checkpoint",
    "$persistentSubscriptionConfig",
    "$projections-$all",
    "$projections-sums-result",
    "$scavenges",
    "$stats-127.0.0.1:2113",
    "$mem-node-state",
    "$epoch-information",
    "$users",
    "$policies",
    "$connectors/sink",
    "$ce-",
    "$et-",
    "$bc-",
    "$category-",
];

/// Streams that are computed for these clients, each with events in it.
const COMPUTED: [&str; 5] = [
    "$ce-account",
    "$et-Opened",
    "$bc-7",
    "$category-account",
    "$streams",
];

#[tokio::test]
async fn streams_that_other_servers_write_are_refused_by_name_in_every_way_to_read() {
    let server = TestServer::start().await;
    let (client, groups) = (TestClient::new(&server).await, Groups::new(&server).await);
    client.put("account-1", &["Opened"]).await;
    for name in NOT_KEPT {
        for options in [
            of_stream(name),
            backwards(of_stream(name)),
            subscribed(of_stream(name)),
        ] {
            let refused = refused(&client, options).await;
            assert_eq!(refused.code(), Code::Unimplemented, "{name}: {refused:?}");
            assert!(refused.message().contains(name), "{refused:?}");
        }
        let refused = groups.create(name, "g", defaults()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name}: {refused:?}");
        assert!(refused.message().contains(name), "{refused:?}");
    }
    // Clients have an option for everything. A group of this name is one of everything.
    for options in [of_stream("$all"), subscribed(of_stream("$all"))] {
        let refused = refused(&client, options).await;
        assert_eq!(refused.code(), Code::Unimplemented, "{refused:?}");
    }
    // A stream of such a name that has events is that stream.
    client.put("$scavenges", &["Noted"]).await;
    assert_eq!(types(&client.all(of_stream("$scavenges")).await), ["Noted"]);
    server.stop().await;
}

#[tokio::test]
async fn computed_streams_are_never_empty_and_wires_that_have_none_refuse_them() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let correlated = append_req::ProposedMessage {
        custom_metadata: br#"{"$correlationId":"7"}"#.to_vec().into(),
        ..event("Opened")
    };
    let appended = client.append("account-1", any(), vec![correlated]).await;
    success(appended.unwrap());
    for name in COMPUTED {
        assert_eq!(types(&client.all(of_stream(name)).await), ["$>"], "{name}");
    }
    let mut own = StoreClient::new(server.connect().await);
    let names = COMPUTED.iter().chain(&NOT_KEPT);
    for &name in names.chain(&["$idx-all", "$idx-ce-account", "$ce-nothing", "$all"]) {
        let scope = Some(Scope {
            kind: Some(scope::Kind::Stream(name.to_owned())),
        });
        let read = ReadRequest {
            scope: scope.clone(),
            ..ReadRequest::default()
        };
        let subscribe = SubscribeRequest {
            scope,
            ..SubscribeRequest::default()
        };
        let refused = [
            own.read(read).await.map(drop).unwrap_err(),
            own.subscribe(subscribe).await.map(drop).unwrap_err(),
        ];
        for refused in refused {
            assert_eq!(refused.code(), Code::InvalidArgument, "{name}: {refused:?}");
            assert!(refused.message().contains(name), "{refused:?}");
        }
    }
    server.stop().await;
}

/// Methods of the contracts of these clients' servers that this server does not have or refuses.
const REFUSED: [&str; 16] = [
    "event_store.client.operations.Operations/Shutdown",
    "event_store.client.operations.Operations/MergeIndexes",
    "event_store.client.operations.Operations/ResignNode",
    "event_store.client.operations.Operations/SetNodePriority",
    "event_store.client.persistent_subscriptions.PersistentSubscriptions/TruncateParked",
    "event_store.cluster.Gossip/Update",
    "event_store.cluster.Elections/ViewChange",
    "kurrent.client.redaction.Redaction/GetEventPositions",
    "kurrent.client.redaction.Redaction/SwitchChunks",
    "kurrentdb.protocol.v2.ServerInfoService/GetServerInfo",
    "kurrentdb.protocol.v2.indexes.IndexesService/Create",
    "kurrentdb.protocol.v2.indexes.IndexesService/List",
    "kurrentdb.protocol.registry.v2.SchemaRegistryService/CreateSchema",
    "kurrentdb.protocol.registry.v2.SchemaRegistryService/ListSchemas",
    "umadb.v1.DCB/Nothing",
    "leftfold.v1.Store/Nothing",
];

#[tokio::test]
async fn methods_that_are_not_offered_are_unimplemented_on_every_wire() {
    let server = TestServer::start().await;
    for method in REFUSED {
        let mut grpc = tonic::client::Grpc::new(server.connect().await);
        grpc.ready().await.unwrap();
        let path = format!("/{method}").parse().unwrap();
        let codec = tonic_prost::ProstCodec::<Empty, Empty>::default();
        let answer = grpc.unary(tonic::Request::new(Empty {}), path, codec).await;
        let refused = answer.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{method}: {refused:?}");
        assert!(!refused.message().is_empty(), "{method}");
    }
    server.stop().await;
}
