//! The protocol of UmaDB's clients.
//!
//! **Owns:** its services. **Does not know:** rules about streams.

use std::sync::Arc;

use tonic::service::RoutesBuilder;

use crate::shared::Shared;

/// Adds the services of this protocol.
pub(crate) fn add_to(_routes: &mut RoutesBuilder, _shared: &Arc<Shared>) {}
