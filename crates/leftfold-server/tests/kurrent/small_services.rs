//! The small services: what the server offers, who it is, how it is, and what operators ask.
//!
//! **Owns:** their rules. **Does not know:** streams.

use leftfold_proto::event_store::client::{
    Empty,
    gossip::{gossip_client::GossipClient, member_info::VNodeState},
    monitoring::{StatsReq, monitoring_client::MonitoringClient},
    operations::{
        StartScavengeReq, StopScavengeReq, operations_client::OperationsClient,
        scavenge_resp::ScavengeResult, stop_scavenge_req,
    },
    server_features::server_features_client::ServerFeaturesClient,
};
use tonic::Code;

use crate::{
    client::{TestClient, code_and_trailer},
    test_server::TestServer,
};

#[tokio::test]
async fn features_are_listed_in_small_letters_with_a_version_of_three_numbers() {
    let server = TestServer::start().await;
    let mut client = ServerFeaturesClient::new(server.connect().await);
    let features = client
        .get_supported_methods(Empty {})
        .await
        .unwrap()
        .into_inner();
    let version = features.event_store_server_version;
    assert_eq!(
        version
            .split('.')
            .filter(|part| part.parse::<u32>().is_ok())
            .count(),
        3
    );
    for method in &features.methods {
        let name = format!("{}/{}", method.service_name, method.method_name);
        assert_eq!(name, name.to_lowercase());
    }
    let batch = features
        .methods
        .iter()
        .find(|method| method.method_name == "batchappend");
    assert_eq!(batch.unwrap().features, ["deadline_duration"]);
    server.stop().await;
}

#[tokio::test]
async fn gossip_has_one_member_that_leads() {
    let server = TestServer::start().await;
    let mut client = GossipClient::new(server.connect().await);
    let gossip = client.read(Empty {}).await.unwrap().into_inner();
    let [member] = &gossip.members[..] else {
        panic!("{gossip:?}")
    };
    assert!(member.is_alive);
    assert_eq!(member.state(), VNodeState::Leader);
    let end = member.http_end_point.as_ref().unwrap();
    assert_eq!(format!("{}:{}", end.address, end.port), server.address());
    server.stop().await;
}

#[tokio::test]
async fn monitoring_tells_figures_of_the_store() {
    let server = TestServer::start().await;
    TestClient::new(&server)
        .await
        .put("a", &["One", "Two"])
        .await;
    let mut client = MonitoringClient::new(server.connect().await);
    let request = StatsReq {
        use_metadata: false,
        refresh_time_period_in_ms: 1_000,
    };
    let mut reports = client.stats(request).await.unwrap().into_inner();
    let stats = reports.message().await.unwrap().unwrap().stats;
    assert!(
        stats.keys().all(|key| key.starts_with("leftfold-")),
        "{stats:?}"
    );
    drop(reports);
    server.stop().await;
}

#[tokio::test]
async fn a_scavenge_is_started_and_an_unknown_one_is_not_found() {
    let server = TestServer::start().await;
    let mut client = OperationsClient::new(server.connect().await);
    let started = client
        .start_scavenge(StartScavengeReq { options: None })
        .await;
    let started = started.unwrap().into_inner();
    assert_eq!(started.scavenge_result(), ScavengeResult::Started);
    let stop = StopScavengeReq {
        options: Some(stop_scavenge_req::Options {
            scavenge_id: "6e0e4c80-0000-4000-8000-000000000000".into(),
        }),
    };
    let refused = client.stop_scavenge(stop).await.unwrap_err();
    assert_eq!(
        code_and_trailer(&refused, "exception"),
        (Code::NotFound, Some("scavenge-not-found"))
    );
    assert!(code_and_trailer(&refused, "scavenge-id").1.is_some());
    let refused = client.shutdown(Empty {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    server.stop().await;
}
