//! The web application among the examples, over HTTP.
//!
//! **Owns:** that its routes answer and its page is sent each change. **Does not know:** how it is written.

use std::path::Path;

use leftfold::Store;
use reqwest::{Client, Response, StatusCode, header::CONTENT_TYPE};

#[path = "../../examples/web.rs"]
#[expect(dead_code, reason = "the example has a main of its own")]
mod example;

async fn change(client: &Client, address: &str, what: &str, cents: u32) -> Response {
    let request = client.post(format!("{address}/accounts/ann/{what}"));
    let request = request.header(CONTENT_TYPE, "application/json");
    let body = format!("{{\"cents\":{cents}}}");
    request.body(body).send().await.unwrap()
}

/// Reads server-sent events until they hold a text.
async fn until_sent(changes: &mut Response, text: &str) {
    let mut sent = String::new();
    while !sent.contains(text) {
        let Some(chunk) = changes.chunk().await.unwrap() else {
            panic!("the stream ended after {sent}");
        };
        sent.push_str(&String::from_utf8_lossy(&chunk));
    }
}

#[tokio::test]
async fn the_page_is_sent_each_change_and_a_withdrawal_that_is_not_covered_is_a_conflict() {
    let store = Store::memory();
    let application = example::application(&store, Path::new(":memory:")).await;
    let (router, projection) = application.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let client = Client::new();
    let page = client.get(&address).send().await.unwrap();
    assert!(page.text().await.unwrap().contains("<h1>Bank</h1>"));
    let mut changes = client
        .get(format!("{address}/changes"))
        .send()
        .await
        .unwrap();
    until_sent(&mut changes, "data: []").await;

    let deposited = change(&client, &address, "deposits", 100).await;
    assert_eq!(deposited.text().await.unwrap(), "1");
    until_sent(&mut changes, r#"[{"account":"ann","cents":100}]"#).await;
    let refused = change(&client, &address, "withdrawals", 101).await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    assert_eq!(refused.text().await.unwrap(), r#"{"cents":100}"#);
    let withdrawn = change(&client, &address, "withdrawals", 30).await;
    assert_eq!(withdrawn.status(), StatusCode::OK);
    until_sent(&mut changes, r#""cents":70"#).await;
    let balances = client
        .get(format!("{address}/balances"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        balances.text().await.unwrap(),
        r#"[{"account":"ann","cents":70}]"#
    );
    projection.stop().await.unwrap();
}
