//! KurrentDB's second protocol: appends to several streams, under checks of any streams.
//!
//! **Owns:** its service. **Does not know:** rules about streams, the first protocol.
//! **Reading order:** `service`, `session` and `records` (one for each method), `checks`; `record` and `status` translate.

mod checks;
mod record;
mod records;
mod service;
mod session;
mod status;

use std::sync::Arc;

use leftfold_proto::kurrentdb::protocol::v2::streams::streams_service_server::StreamsServiceServer;

use self::service::Streams;
use super::limits::MESSAGE_OVERHEAD;
use crate::{protocol::GrpcRoutes, state::ServerState};

/// Adds the service of this protocol.
pub(super) fn register(services: &mut GrpcRoutes, shared: &Arc<ServerState>) {
    let bytes = shared.settings.message_bytes_max.len();
    let service = StreamsServiceServer::new(Streams::new(shared));
    services.add(service.max_decoding_message_size(bytes.saturating_add(MESSAGE_OVERHEAD)));
}
