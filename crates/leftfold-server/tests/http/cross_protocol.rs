//! One log: what comes by HTTP is seen by the other protocols, and the other way round.
//!
//! **Owns:** that they agree. **Does not know:** their rules.

use leftfold_proto::umadb::v1::{AppendRequest, Event, HeadRequest, dcb_client::DcbClient};
use serde_json::json;

use crate::{
    client::{TestClient, types},
    test_server::TestServer,
};

#[tokio::test]
async fn what_one_protocol_writes_the_others_read() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let mut grpc = DcbClient::new(server.connect().await);
    let event = Event {
        event_type: "ByUma".into(),
        tags: vec!["x".into()],
        data: b"{}".to_vec().into(),
        ..Event::default()
    };
    let request = AppendRequest {
        events: vec![event],
        ..AppendRequest::default()
    };
    grpc.append(request).await.unwrap();
    http.post(
        "/api/v1/streams/a/events",
        &json!({"type": "ByHttp", "tags": ["x"]}),
    )
    .await
    .good();
    let head = grpc
        .head(HeadRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(head.position, Some(2));
    let page = http.get("/api/v1/events?tag=x").await.good();
    assert_eq!(types(&page), ["ByUma", "ByHttp"]);
    server.stop().await;
}
