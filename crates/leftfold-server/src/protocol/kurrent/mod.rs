//! The first and the second protocol of KurrentDB's clients.
//!
//! **Owns:** their services. **Does not know:** rules about streams, how events are stored.
//! **Invariants:** statuses, trailers and messages are those that the clients' own code looks for (docs/protocol.md); a
//! position on this wire is the store's position, as commit and as prepare position.
//! **Reading order:** `event`, `encode`, `status`, `request`, `streams`, `read`, `subscribe`, `append`, `batch`, `delete`,
//! `persistent`, then the small services.

mod append;
mod batch;
mod delete;
mod encode;
mod event;
mod features;
mod filter;
mod first_event;
mod gossip;
mod index;
mod limits;
mod link_resolver;
mod monitoring;
mod operations;
mod persistent;
mod projections;
mod read;
mod request;
mod revision;
mod status;
mod stream_ids;
mod streams;
mod subscribe;
mod tags;
mod tombstoned_metadata;
mod unsupported;
mod users;
mod v2;

use std::sync::Arc;

use leftfold_proto::event_store::client::{
    gossip::gossip_server::GossipServer, monitoring::monitoring_server::MonitoringServer,
    operations::operations_server::OperationsServer,
    persistent_subscriptions::persistent_subscriptions_server::PersistentSubscriptionsServer,
    projections::projections_server::ProjectionsServer,
    server_features::server_features_server::ServerFeaturesServer,
    streams::streams_server::StreamsServer, users::users_server::UsersServer,
};

pub(crate) use status::access_denied;

use crate::{protocol::GrpcRoutes, state::ServerState};

/// Adds the services of these protocols.
pub(crate) fn register(services: &mut GrpcRoutes, shared: &Arc<ServerState>) {
    let bytes = shared.settings.message_bytes_max.len();
    let received = bytes.saturating_add(limits::MESSAGE_OVERHEAD);
    let share = || Arc::clone(shared);
    v2::register(services, shared);
    services
        .add(
            StreamsServer::new(streams::Streams::new(share()))
                .max_decoding_message_size(received)
                .max_encoding_message_size(limits::SENT_BYTES_MAX),
        )
        .add(ServerFeaturesServer::new(features::Features))
        .add_prepared(
            GossipServer::new(gossip::Gossip(share())),
            gossip::capture_uri,
        )
        .add(MonitoringServer::new(monitoring::Monitoring(share())))
        .add(OperationsServer::new(operations::Operations(share())))
        .add(UsersServer::new(users::Users(share())))
        .add(ProjectionsServer::new(projections::Projections(share())))
        .add(
            PersistentSubscriptionsServer::new(persistent::PersistentSubscriptions(share()))
                .max_decoding_message_size(received)
                .max_encoding_message_size(limits::SENT_BYTES_MAX),
        );
}
