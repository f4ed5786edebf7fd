//! Plain HTTP: for people, scripts and monitoring.
//!
//! **Owns:** its routes. **Does not know:** rules about streams.

use std::sync::Arc;

use axum::{Router, routing::get};

use crate::shared::Shared;

/// The routes of this protocol.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/health/live", get(|| async {}))
        .with_state(Arc::clone(shared))
}
