//! What this server does not make is refused by its name, never answered as if it were empty.
//!
//! **Owns:** tests, those of secondary indexes included. **Does not know:** reads of streams that people write.

use leftfold_proto::event_store::client::streams::{
    read_req::{
        Options,
        options::{FilterOption, FilterOptions, filter_options},
    },
    read_resp::Content,
};
use tonic::{Code, Status};

use crate::{
    client::{TestClient, of_all, of_stream, subscribed, told, types},
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
        assert_eq!(told(&refused, "exception").1, Some("index-not-found"));
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
                told(&refused, "exception"),
                (Code::NotFound, Some("index-not-found")),
                "{refused:?}"
            );
            assert_eq!(told(&refused, "index-name").1, Some(index));
        }
        let refused = refused(&client, of_stream(index)).await;
        assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
    }
    server.stop().await;
}
