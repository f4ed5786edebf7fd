//! The health of the server, as gRPC clients and orchestrators ask for it.
//!
//! **Owns:** which services say that they serve, and until when. **Does not know:** what they do.
//! **Invariants:** every service that this server offers has a status; all change when the server begins to stop, and nobody
//! who watches them keeps it from stopping.

use std::sync::Arc;

use futures_util::FutureExt;
use leftfold_proto::{event_store::client, kurrentdb::protocol::v2, umadb};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::shared::Shared;

/// The services, and the server as a whole.
const SERVICES: &[&str] = &[
    "",
    client::gossip::gossip_server::SERVICE_NAME,
    client::monitoring::monitoring_server::SERVICE_NAME,
    client::operations::operations_server::SERVICE_NAME,
    client::server_features::server_features_server::SERVICE_NAME,
    client::streams::streams_server::SERVICE_NAME,
    v2::streams::streams_service_server::SERVICE_NAME,
    umadb::v1::dcb_server::SERVICE_NAME,
];

/// Adds the service that tells how the others are.
pub(crate) fn add_to(routes: &mut RoutesBuilder, shared: &Arc<Shared>) {
    let (reporter, service) = tonic_health::server::health_reporter();
    // Nobody else has it yet, so it is done at once.
    let _ = say(&reporter, ServingStatus::Serving).now_or_never();
    routes.add_service(service);
    shared.tasks.spawn(end(reporter, shared.stopping.clone()));
}

async fn say(reporter: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}

/// Says that nothing serves any more once the server begins to stop, and lets those go who watch.
async fn end(mut reporter: HealthReporter, stopping: CancellationToken) {
    stopping.cancelled().await;
    say(&reporter, ServingStatus::NotServing).await;
    for service in SERVICES {
        reporter.clear_service_status(service).await;
    }
}
