//! What the server can do, told to clients that ask before they begin.
//!
//! **Owns:** the list of methods and features. **Does not know:** how any of them is done.
//! **Invariants:** only what is there is listed; the version agrees with the list, since some clients look at either.

use leftfold_proto::event_store::client::{
    Empty,
    server_features::{SupportedMethod, SupportedMethods, server_features_server},
};
use tonic::{Request, Response, Status, async_trait};

/// The version of the protocol's own server whose methods these are.
const VERSION: &str = "26.1.0";

/// Service, method, features; in lower case, as clients compare them.
const METHODS: &[(&str, &str, &[&str])] = &[
    (
        "event_store.client.streams.streams",
        "read",
        &["position", "events"],
    ),
    ("event_store.client.streams.streams", "append", &[]),
    (
        "event_store.client.streams.streams",
        "batchappend",
        &["deadline_duration"],
    ),
    ("event_store.client.streams.streams", "delete", &[]),
    ("event_store.client.streams.streams", "tombstone", &[]),
    (
        "kurrentdb.protocol.v2.streams.streamsservice",
        "appendsession",
        &[],
    ),
    (
        "kurrentdb.protocol.v2.streams.streamsservice",
        "appendrecords",
        &[],
    ),
    ("event_store.client.gossip.gossip", "read", &[]),
    ("event_store.client.monitoring.monitoring", "stats", &[]),
    (
        "event_store.client.operations.operations",
        "startscavenge",
        &[],
    ),
    (
        "event_store.client.operations.operations",
        "stopscavenge",
        &[],
    ),
    (
        "event_store.client.server_features.serverfeatures",
        "getsupportedmethods",
        &[],
    ),
];

/// The service.
#[derive(Debug)]
pub(super) struct Features;

#[async_trait]
impl server_features_server::ServerFeatures for Features {
    async fn get_supported_methods(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<SupportedMethods>, Status> {
        let method = |&(service, method, features): &(&str, &str, &[&str])| SupportedMethod {
            method_name: method.to_owned(),
            service_name: service.to_owned(),
            features: features.iter().map(|&feature| feature.to_owned()).collect(),
        };
        Ok(Response::new(SupportedMethods {
            methods: METHODS.iter().map(method).collect(),
            event_store_server_version: VERSION.to_owned(),
        }))
    }
}
