//! The protocol of KurrentDB's clients.
//!
//! **Owns:** its services. **Does not know:** rules about streams.

mod v2;

use std::sync::Arc;

use tonic::service::RoutesBuilder;

use crate::shared::Shared;

/// Adds the services of this protocol.
pub(crate) fn add_to(routes: &mut RoutesBuilder, shared: &Arc<Shared>) {
    v2::add_to(routes, shared);
}
