//! Reads: both directions, ends, links, filters, positions.
//!
//! **Owns:** the rules of `Read` that ends. **Does not know:** subscriptions.

use futures_util::future::join_all;
use leftfold_proto::event_store::client::{
    Empty,
    streams::{
        read_req::options::{
            self, AllOptions, CountOption, StreamOption, UuidOption, all_options::AllOption,
            uuid_option,
        },
        read_resp::Content,
    },
    uuid::Value,
};
use tonic::Code;

use crate::{
    client::{
        TestClient, any, backwards, entry, event, filtered, of_all, of_stream, read, subscribed,
        success, type_of, types,
    },
    test_server::TestServer,
};

/// A read of everything from this position.
fn from(commit: u64, prepare: u64) -> StreamOption {
    StreamOption::All(AllOptions {
        all_option: Some(AllOption::Position(options::Position {
            commit_position: commit,
            prepare_position: prepare,
        })),
    })
}

#[tokio::test]
async fn everything_begins_with_an_event_of_the_systems_own() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    assert_eq!(types(&client.all(of_all()).await), ["$logBegun"]);
    client.put("a", &["One"]).await;
    client.put("b", &["Two"]).await;
    assert_eq!(
        types(&client.all(of_all()).await),
        ["$logBegun", "One", "Two"]
    );
    let back = client.all(backwards(of_all())).await;
    assert_eq!(types(&back), ["Two", "One", "$logBegun"]);
    server.stop().await;
}

#[tokio::test]
async fn positions_are_included_forwards_and_left_out_backwards() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    client.put("a", &["One", "Two", "Three"]).await;
    let forwards = options_from(2, 2);
    assert_eq!(types(&client.all(forwards.clone()).await), ["Two", "Three"]);
    let mut back = backwards(of_all());
    back.stream_option = forwards.stream_option;
    assert_eq!(types(&client.all(back).await), ["One", "$logBegun"]);
    for impossible in [options_from(1, 2), options_from(4, 4)] {
        let refused = client.read(impossible).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unknown);
        assert_eq!(
            refused.message(),
            "Unexpected FilteredReadAllResult: InvalidPosition"
        );
    }
    server.stop().await;
}

fn options_from(
    commit: u64,
    prepare: u64,
) -> leftfold_proto::event_store::client::streams::read_req::Options {
    let mut options = of_all();
    options.stream_option = Some(from(commit, prepare));
    options
}

#[tokio::test]
async fn a_missing_stream_is_a_message_and_a_read_by_count_does_not_tell_the_end() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let answers = client.all(of_stream("none")).await;
    assert!(matches!(answers[..], [Content::StreamNotFound(_)]));
    client.put("a", &["One", "Two", "Three"]).await;
    let answers = client.all(of_stream("a")).await;
    assert!(matches!(
        answers.last(),
        Some(Content::LastStreamPosition(2))
    ));
    let mut two = backwards(of_stream("a"));
    two.count_option = Some(CountOption::Count(2));
    let answers = client.all(two).await;
    assert_eq!(types(&answers), ["Three", "Two"]);
    assert_eq!(answers.len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn ids_come_in_the_form_that_was_asked_for_and_one_has_to_be() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    client.put("a", &["One"]).await;
    let mut options = of_stream("a");
    options.uuid_option = Some(UuidOption {
        content: Some(uuid_option::Content::Structured(Empty {})),
    });
    let answers = client.all(options.clone()).await;
    let Content::Event(event) = &answers[0] else {
        panic!("{answers:?}")
    };
    let shown = read(event).event.unwrap();
    assert!(matches!(
        shown.id.as_ref().unwrap().value,
        Some(Value::Structured(_))
    ));
    let created = shown
        .metadata
        .iter()
        .find(|entry| entry.key == "created")
        .unwrap();
    let ticks: u64 = std::str::from_utf8(&created.value)
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        ticks > 17_000_000_000_000_000,
        "hundreds of nanoseconds since 1970"
    );
    options.uuid_option = None;
    assert_eq!(
        client.read(options).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    server.stop().await;
}

#[tokio::test]
async fn links_are_followed_if_asked_and_shown_alone_if_they_lead_nowhere() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    client.put("a", &["One", "Two"]).await;
    for target in ["1@a", "9@a"] {
        let mut link = event("$>");
        link.metadata = vec![
            entry("type", "$>"),
            entry("content-type", "application/octet-stream"),
        ];
        link.data = target.as_bytes().to_vec().into();
        success(client.append("links", any(), vec![link]).await.unwrap());
    }
    let plain = client.all(of_stream("links")).await;
    assert_eq!(types(&plain), ["$>", "$>"]);
    let mut followed = of_stream("links");
    followed.resolve_links = true;
    let answers = client.all(followed).await;
    let [Content::Event(found), Content::Event(lost), ..] = &answers[..] else {
        panic!("{answers:?}")
    };
    let (found, lost) = (read(found), read(lost));
    assert_eq!(type_of(&found), "Two");
    assert_eq!(found.link.as_ref().unwrap().stream_revision, 0);
    assert!(lost.event.is_none() && lost.link.is_some());
    server.stop().await;
}

#[tokio::test]
async fn filters_take_prefixes_and_expressions_that_look_ahead_and_refuse_bad_ones() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    client.put("cart-1", &["One"]).await;
    client.put("order-1", &["Two"]).await;
    client.put("$$cart-1", &["$metadata"]).await;
    let found = client
        .all(filtered(of_all(), r"^(?!(\$.+$|cart))", 32))
        .await;
    assert_eq!(types(&found), ["Two"]);
    let refused = client.read(filtered(of_all(), "(", 32)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = client
        .read(filtered(of_stream("cart-1"), "a", 32))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let long = "(".repeat(8_000);
    let refused = client
        .read(filtered(of_all(), &long, 32))
        .await
        .unwrap_err();
    assert!(refused.message().len() < 1_000, "it fits into headers");
    server.stop().await;
}

#[tokio::test]
async fn expressions_that_compile_to_much_are_refused_however_many_come_at_once() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    client.put("cart-1", &["One"]).await;
    let costly = r"(?>\w{1000})".repeat(68);
    let reads = (0..32).map(|number| {
        let options = match number % 2 {
            0 => filtered(of_all(), &costly, 32),
            _ => subscribed(filtered(of_all(), &costly, 32)),
        };
        client.read(options)
    });
    for refused in join_all(reads).await {
        let refused = refused.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().contains("too complex"), "{refused:?}");
    }
    let found = client.all(filtered(of_all(), "^cart-", 32)).await;
    assert_eq!(types(&found), ["One"]);
    server.stop().await;
}
