//! Leftfold's own protocol: the store contract over the wire.
//!
//! **Owns:** its services. **Does not know:** rules about streams.
//! **Invariants:** an append that began finishes, even if its client is gone; a status carries what the client needs to
//! rebuild the store's error.
//! **Reading order:** `service`, `session`, `consumers`, then the translations: `decode`, `encode`, `status`.

mod access;
mod answer;
mod chunked_append;
mod consumers;
mod decode;
mod encode;
mod service;
mod session;
mod status;

use std::sync::Arc;

use leftfold_proto::leftfold::v1::{access_server::AccessServer, store_server::StoreServer};

use self::service::Native;
use crate::{protocol::GrpcRoutes, state::ServerState};

/// Adds the services of this protocol.
pub(crate) fn register(services: &mut GrpcRoutes, shared: &Arc<ServerState>) {
    let service = StoreServer::new(Native::new(shared))
        .max_decoding_message_size(shared.settings.message_bytes_max.len())
        .max_encoding_message_size(usize::MAX);
    let access = AccessServer::new(access::Access(Arc::clone(shared)));
    services.add(service).add(access);
}
