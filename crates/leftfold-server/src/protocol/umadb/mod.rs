//! The protocol of UmaDB's clients.
//!
//! **Owns:** its services. **Does not know:** rules about streams.
//! **Invariants:** appends of this protocol go to the default stream; events of system streams, whose names begin with `$`,
//! are never shown.
//! **Reading order:** `service`, then `append`, `read`, `subscribe`; `event`, `encode`, `metadata`, `query` and `status`
//! translate.

mod append;
mod batcher;
mod encode;
mod event;
mod metadata;
mod query;
mod read;
mod service;
mod status;
mod subscribe;
mod tracking;

use std::sync::Arc;

use leftfold_proto::umadb::v1::dcb_server::DcbServer;

use self::service::Dcb;
use crate::{
    protocol::{GrpcRoutes, methods::UMADB_OLDER_NAME},
    state::ServerState,
};

/// Adds the services of this protocol.
pub(crate) fn register(services: &mut GrpcRoutes, shared: &Arc<ServerState>) {
    let service = DcbServer::new(Dcb::new(shared));
    let service = service.max_decoding_message_size(shared.settings.message_bytes_max.len());
    services
        .add_alias(UMADB_OLDER_NAME, service.clone())
        .add(service);
}
