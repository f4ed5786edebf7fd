//! The features of the server, for clients that look them up before they begin.
//!
//! **Owns:** the features of methods. **Does not know:** how any of them works.
//! **Invariants:** only available features are listed; the version agrees with the list, since some clients look at either.

use leftfold_proto::event_store::client::{
    Empty,
    persistent_subscriptions::persistent_subscriptions_server,
    server_features::{SupportedMethod, SupportedMethods, server_features_server},
    streams::streams_server,
};
use tonic::{Request, Response, Status, async_trait};

use crate::protocol::methods::{CallKind, KURRENT, KURRENT_V2, Method, SERVICES, Service};

/// The version of the protocol's own server whose methods these are.
const VERSION: &str = "26.1.0";

/// The features of methods.
const FEATURES: &[(&str, &[&str])] = &[
    ("Read", &["position", "events"]),
    ("BatchAppend", &["deadline_duration"]),
];
/// What groups can be made of, which clients look for at each method.
const OF_GROUPS: &[&str] = &["stream", "all"];

fn features(service: &Service, method: &Method) -> &'static [&'static str] {
    match service.name {
        persistent_subscriptions_server::SERVICE_NAME => OF_GROUPS,
        streams_server::SERVICE_NAME => FEATURES
            .iter()
            .find(|(name, _)| *name == method.name)
            .map_or(&[], |(_, features)| *features),
        _ => &[],
    }
}

/// Returns all methods of these protocols, in lower case, as clients compare them.
fn methods() -> impl Iterator<Item = SupportedMethod> {
    let ours = |service: &&Service| [KURRENT, KURRENT_V2].contains(&service.contract);
    SERVICES.iter().filter(ours).flat_map(|service| {
        let offered = service
            .methods
            .iter()
            .filter(|method| method.kind != CallKind::Refused);
        offered.map(|method| {
            let features = features(service, method).iter();
            SupportedMethod {
                method_name: method.name.to_ascii_lowercase(),
                service_name: service.name.to_ascii_lowercase(),
                features: features.map(|&feature| feature.to_owned()).collect(),
            }
        })
    })
}

/// The service.
#[derive(Debug)]
pub(super) struct Features;

#[async_trait]
impl server_features_server::ServerFeatures for Features {
    async fn get_supported_methods(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<SupportedMethods>, Status> {
        Ok(Response::new(SupportedMethods {
            methods: methods().collect(),
            event_store_server_version: VERSION.to_owned(),
        }))
    }
}
